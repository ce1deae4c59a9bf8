// setmaxnreg: what a CTA's warps give back and take from its share of the register file (PTX ISA 9.7.19.5).
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"

using namespace quern::sim;

void qsim_setmaxnreg(uint32_t registers, uint32_t increase) {
  step();
  Thread &t = self();
  Cta &cta = *t.cta;
  if (registers < 24 || registers > 256 || registers % 8)
    fatal("registers", "setmaxnreg {}: multiples of 8 from 24 to 256 are legal", registers);
  if (increase ? registers < t.registers : registers > t.registers)
    fatal("registers", "setmaxnreg.{} {}: the warp has {} registers per thread", increase ? "inc" : "dec",
          registers, t.registers);
  const int64_t more = int64_t(registers) - t.registers;
  while (cta.freeRegisters < more) {
    cta.registerWaiters.push_back(t.id);
    t.waitDetail = registers;
    block(State::Registers);
  }
  cta.freeRegisters -= more;
  t.registers = registers;
  if (more < 0) {
    for (unsigned waiter : cta.registerWaiters) wake(waiter);
    cta.registerWaiters.clear();
  }
}
