// What the tuner and its worker process say to each other: one JSON object per line. README.md has the table.
#pragma once
#include "runtime/tune/Measurer.h"
#include <nlohmann/json.hpp>

namespace quern::tune::protocol {

using Json = nlohmann::json;

Json toJson(const Problem &problem);
/// Parses the program again. Throws nlohmann::json::exception when a member is missing.
Expected<Problem> problemOf(const Json &json);

Json toJson(const Error &error);
Error errorOf(const Json &json);

Json toJson(const Failure &failure);
Failure failureOf(const Json &json);

std::string line(const Json &json);

} // namespace quern::tune::protocol
