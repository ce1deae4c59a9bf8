// See Protocol.h.
#include "runtime/tune/Protocol.h"
#include "compiler/syntax/Syntax.h"

namespace quern::tune::protocol {

Json toJson(const Problem &p) {
  return {{"program", syntax::print(*p.program)},
          {"file", p.program->fileName},
          {"kernel", p.kernel},
          {"dims", p.dims},
          {"act", int(p.act)},
          {"quant", int(p.quant)},
          {"block", p.block},
          {"target", p.target},
          {"ordinal", p.ordinal}};
}

Expected<Problem> problemOf(const Json &json) {
  auto program =
      syntax::parseProgram(json.at("program").get<std::string>(), json.at("file").get<std::string>());
  if (!program) return program.takeError();
  Problem p;
  p.program = *program;
  p.kernel = json.at("kernel"), p.dims = json.at("dims").get<std::map<std::string, int64_t>>();
  p.act = DType(json.at("act").get<int>()), p.quant = DType(json.at("quant").get<int>());
  p.block = json.at("block"), p.target = json.at("target"), p.ordinal = json.at("ordinal");
  return p;
}

Json toJson(const Error &e) {
  return {{"kind", int(e.kind)},
          {"message", e.message},
          {"place", e.place},
          {"rule", e.rule},
          {"detail", e.detail}};
}

Error errorOf(const Json &json) {
  return {ErrorKind(json.at("kind").get<int>()), json.at("message"), json.at("place"), json.at("rule"),
          json.at("detail")};
}

Json toJson(const Failure &f) {
  return {{"kind", int(f.kind)}, {"message", f.message}, {"repro", f.repro}, {"assembler", f.assembler}};
}

Failure failureOf(const Json &json) {
  return {FailureKind(json.at("kind").get<int>()), json.at("message"), json.at("repro"),
          json.at("assembler")};
}

std::string line(const Json &json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace quern::tune::protocol
