"""Random programs from the grammar, legal by construction, and mutants of them that may or may not be legal."""
import random
import re

ARITY1 = ("sigmoid", "tanh", "erf")


class ProgramMaker:
    """One random program with one kernel called `main`. All randomness comes from `rng`."""

    def __init__(self, rng):
        self.rng = rng

    def run(self):
        self.lines, self.codecs, self.fns = [], [], []
        for _ in range(self.rng.randint(1, 2)):
            self.codec()
        for _ in range(self.rng.randint(0, 3)):
            self.fn()
        self.kernel()
        return "\n".join(self.lines) + "\n"

    def chance(self, p):
        return self.rng.random() < p

    # Declarations
    def codec(self):
        if self.chance(0.25):
            name = self.rng.choice(["nf4", "fp4", "mxfp4", "int4"])
            if name not in self.codecs:
                self.lines.append(f"use {name}")
                self.codecs.append(name)
            return
        rng, name = self.rng, f"c{len(self.codecs)}"
        entry = rng.choice([lambda: rng.randint(-8, 8), lambda: round(rng.gauss(0, 1), 3), lambda: f"{rng.uniform(-2, 2):.3e}",
                            lambda: rng.randint(-16, 16) / 4])
        table = ", ".join(str(entry()) for _ in range(16))
        block = rng.choice([32, 64, 128, 256, 4096])
        fields = [f"table = [{table}]", f"first = {rng.choice(['high', 'low'])}",
                  f"scale {rng.choice(['f32', 'bf16', 'e8m0'])} per {block}"]
        if self.chance(0.4):
            fields.append(f"zero u4 per {block}")
        if self.chance(0.3):
            rng.shuffle(fields)
        self.lines.append(f"codec {name} {{ {'  '.join(fields)} }}")
        self.codecs.append(name)

    def fn(self):
        name, arity = f"f{len(self.fns)}", self.rng.randint(1, 3)
        names = [f"a{i}" for i in range(arity)]
        self.lines.append(f"fn {name}({', '.join(names)}) {{")
        for i in range(self.rng.randint(0, 2)):
            self.lines.append(f"  t{i} = {self.scalar(names, 2)}")
            names.append(f"t{i}")
        self.lines.append(f"  return {self.scalar(names, 3)}  # {name}")
        self.lines.append("}")
        self.fns.append((name, arity))

    def constant(self):
        return self.rng.choice(["0.5", "1.0", "2", "7.0", "1.702", "0.044715", "3e-1", "1e-5", "0"])

    def scalar(self, atoms, depth):
        """An expression over `atoms` (texts of any precedence)."""
        rng = self.rng
        if depth == 0 or self.chance(0.15):
            return rng.choice(atoms) if self.chance(0.8) else self.constant()
        sub = lambda: self.scalar(atoms, depth - 1)
        form = rng.choice("add sub mul mul neg call2 call1 exp clamp select div fn fn paren".split())
        if form in ("add", "sub"):
            return f"{sub()} {'+' if form == 'add' else '-'} ({sub()})"
        if form == "mul":
            return f"({sub()}) * ({sub()})"
        if form == "neg":
            return f"-({sub()})"
        if form == "call2":
            return f"{rng.choice(['min', 'max'])}({sub()}, {sub()})"
        if form == "call1":
            return f"{rng.choice(ARITY1)}({sub()})"
        if form == "exp":
            return f"exp(min({sub()}, 3.0))"
        if form == "clamp":
            return f"clamp({sub()}, {rng.choice(['-7.0', '-1.5', '0.0'])}, {rng.choice(['7.0', '2', '0.5'])})"
        if form == "select":
            return f"select({sub()} {rng.choice(['<', '<=', '>', '>=', '==', '!='])} {sub()}, {sub()}, {sub()})"
        if form == "div":
            return f"({sub()}) / {rng.choice(['2.0', '(1.5 + sigmoid(' + sub() + '))', '(0.5 + exp(-(' + sub() + ') * 0.1))'])}"
        if form == "fn" and self.fns:
            name, arity = rng.choice(self.fns)
            return f"{name}({', '.join(sub() for _ in range(arity))})"
        return f"({sub()})"

    # The kernel. `params` collects what the statements use; names carry their meaning.
    def kernel(self):
        rng = self.rng
        self.routed = self.chance(0.7)
        self.row = rng.choice(["r", "row", "i"])
        self.params, self.stmts, self.outputs, self.locals = {}, [], [], 0
        # N stands for all column dimensions; with pairs or halves the outputs have N/2 columns.
        self.split = rng.choice([None, None, "pairs", "halves"])
        self.columns = "N/2" if self.split else "N"
        for o in range(rng.choice([1, 1, 1, 2, 3])):
            self.output(o)
        params = [f"{name}: {kind}" for name, kind in self.params.items()]
        if self.routed:
            params.append("route: routing[T, E]")
        rng.shuffle(params)
        self.lines.append(f"kernel main({', '.join(params)}) -> {', '.join(self.outputs)} {{")
        self.lines += ["  " + s for s in self.stmts]
        self.lines.append("}")

    def param(self, name, kind):
        name = f"{name}{len(self.params)}"
        self.params[name] = kind
        return name

    def reuse(self, prefix, kinds):
        """An existing parameter of this kind half of the time, else a new one."""
        kind = self.rng.choice(kinds)
        old = [n for n, k in self.params.items() if k == kind and n.startswith(prefix)]
        return self.rng.choice(old) if old and self.chance(0.5) else self.param(prefix, kind)

    def activations(self, columns):
        """(text of an access by row with last index {}, ...) of a fresh or reused activation tensor."""
        elem = self.rng.choice(["act", "act", "act", "f32", "bf16", "float"])
        if not self.routed:
            return f"{self.reuse('x', [f'{elem}[T, {columns}]'])}[{self.row}, {{}}]"
        if self.chance(0.5):
            return f"{self.reuse('x', [f'{elem}[T, {columns}]'])}[{self.row}.token, {{}}]"
        return f"{self.reuse('h', [f'{elem}[R, {columns}]'])}[{self.row}, {{}}]"

    def weights(self, columns, reduced, packed):
        kinds = self.codecs if packed else ["float", "act", "f32"]
        if self.routed and self.chance(0.8):
            return f"{self.reuse('w', [f'{k}[E, {columns}, {reduced}]' for k in kinds])}[{self.row}.expert, {{}}, {{}}]"
        return f"{self.reuse('w', [f'{k}[{columns}, {reduced}]' for k in kinds])}[{{}}, {{}}]"

    def sum(self, var):
        """A contraction of N columns over K, sometimes of low rank."""
        rng, k = self.rng, self.rng.choice(["k", "c"])
        if self.chance(0.25):
            inner = self.product("k", self.activations("K").format("k"), self.weights("P", "K", self.chance(0.1)).format("p", "k"))
            if self.chance(0.4):
                name = self.local()
                self.stmts.append(f"{name}[{self.row}, p] = {inner}")
                left = f"{name}[{self.row}, p]"
            else:
                left = f"({inner})"
            return self.product("p", left, self.weights("N", "P", False).format(var, "p"))
        return self.product(k, self.activations("K").format(k), self.weights("N", "K", self.chance(0.85)).format(var, k))

    def product(self, var, left, right):
        if self.chance(0.2):
            left, right = right, left
        return f"sum({var}) {left} * {right}"

    def local(self):
        self.locals += 1
        return f"y{self.locals}"

    def column_atoms(self, read):
        """How `read(index)` of an N-column tensor looks for the output's column j."""
        if self.split == "pairs":
            return [read("2*j"), read("2*j+1")]
        if self.split == "halves":
            return [read("j"), read("j + N/2")]
        return [read("j")]

    def output(self, number):
        rng, row = self.rng, self.row
        combine = self.routed and self.chance(0.45)
        atoms = []
        # A local with one or two sums, read through the split; or sums right in the output's value.
        for _ in range(rng.choice([1, 1, 2])):
            if self.split or self.chance(0.6):
                value = self.sum("n")
                if self.chance(0.4):
                    value += f" {rng.choice('+-')} " + self.bias_atom("n")
                if self.chance(0.2):
                    value = f"{self.scale_atom()} * ({value})"
                name = self.local()
                self.stmts.append(f"{name}[{row}, n] = {value}")
                atoms += self.column_atoms(lambda c: f"{name}[{row}, {c}]")
            else:
                atoms.append(f"({self.sum('j')})")
        if self.chance(0.2):  # a local over locals: their reads compose
            name = self.local()
            inner = [re.sub(r"\bj\b", "m", a) for a in atoms]
            value = self.scalar(inner, 2)
            self.stmts.append(f"{name}[{row}, m] = {' + '.join([value] + inner)}")
            atoms = [f"{name}[{row}, j]"]
        extra = []
        if self.chance(0.4):
            extra.append(self.scale_atom())
        if self.chance(0.4):
            extra += [self.bias_atom(c) for c in self.column_atoms(lambda c: c)]
        if self.chance(0.25):
            extra.append(self.activations(self.columns).format("j"))
        value = self.scalar(atoms + extra, rng.randint(0, 3))
        unused = [a for a in atoms + extra if not re.search(rf"(?<!\w){re.escape(a)}(?!\w)", value)]
        for a in unused:  # every local and parameter must be read
            value = f"{value} + {a}" if self.chance(0.7) else f"({value}) * {a}"
        name = f"o{number}"
        if combine:
            self.outputs.append(f"{name}: f32[T, {self.columns}]")
            weight = f"({value}) * {row}.weight" if self.chance(0.7) else value
            self.stmts.append(f"{name}[{row}.token, j] += {weight}")
        else:
            act = any(k.startswith("act[") for k in self.params.values())
            elem = rng.choice(["act", "act", "f32", "bf16", "f16"] if act else ["f32", "bf16", "f16"])
            self.outputs.append(f"{name}: {elem}[{'R' if self.routed else 'T'}, {self.columns}]")
            self.stmts.append(f"{name}[{row}, j] = {value}")

    def scale_atom(self):
        choices = [lambda: self.reuse("s", ["f32"])]
        if self.routed:
            choices += [lambda: f"{self.row}.weight", lambda: f"{self.reuse('g', ['float[E]'])}[{self.row}.expert]",
                        lambda: f"{self.reuse('q', ['float[T]'])}[{self.row}.token]"]
        else:
            choices.append(lambda: f"{self.reuse('q', ['float[T]'])}[{self.row}]")
        return self.rng.choice(choices)()

    def bias_atom(self, column):
        if self.routed and self.chance(0.7):
            return f"{self.reuse('b', ['float[E, N]', 'act[E, N]'])}[{self.row}.expert, {column}]"
        return f"{self.reuse('d', ['float[N]', 'f32[N]'])}[{column}]"


def make_program(rng):
    return ProgramMaker(rng).run()


TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9][0-9.e]*|->|\+=|<=|>=|==|!=|\S|\s+")
WORDS = ("sum select min fn kernel codec use return act float f32 bf16 routing table first scale zero per T E N K R r n j k x w y 0 1 2 "
         "16 64 1e39 0.0 ( ) [ ] { } , : . -> = += + - * / < == # token expert weight N/2 2*j @ é").split()


EXTRA = {"name": ["N", "T", "j", "n", "r", "f32", "act"], "number": ["0", "1", "2", "16", "64", "0.5"],
         "operator": list("+-*/") + ["<=", "=="], "other": list(",()[]")}


def kind_of(token):
    if token[0].isalpha() or token[0] == "_":
        return "name"
    return "number" if token[0].isdigit() else "operator" if token in EXTRA["operator"] + ["<", ">", ">=", "!="] else "other"


def mutate(rng, text):
    """The text with one to three tokens dropped, doubled, swapped or replaced."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        solid = [i for i, t in enumerate(tokens) if t and not t.isspace()]
        if len(solid) < 2:
            break
        i, j = rng.sample(solid, 2)
        action = rng.choice(["drop", "double", "swap", "replace", "copy", "kin", "kin", "kin"])
        if action == "drop":
            tokens[i] = ""
        elif action == "double":
            tokens[i] += " " + tokens[i]
        elif action == "swap":
            tokens[i], tokens[j] = tokens[j], tokens[i]
        elif action == "copy":
            tokens[i] = tokens[j]
        elif action == "kin":  # another token of the same kind: likely to parse, and often to pass the checks
            kind = kind_of(tokens[i])
            tokens[i] = rng.choice([tokens[k] for k in solid if kind_of(tokens[k]) == kind] + EXTRA[kind])
        else:
            tokens[i] = rng.choice(WORDS)
    return "".join(tokens)


if __name__ == "__main__":
    import sys

    print(make_program(random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)))
