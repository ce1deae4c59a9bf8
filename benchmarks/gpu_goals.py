"""What the GPU benchmark's figures are held against: one line per goal, with the worst case that counts for it."""

# (text, which cases count, ratio that must reach `least`); ratio(record, peers, ceiling) with peers {name: figures}.
GOALS = [
    (
        "a projection no slower than grouped_mm on resident bf16 weights from 256 rows per expert on",
        lambda r: r["projection"] != "layer" and r["rows_per_expert"] >= 256 and "grouped_mm" in r["peers"],
        lambda r, p, _: p["grouped_mm"]["us"] / p["quern"]["us"],
        1.0,
    ),
    (
        "a whole layer no slower than with grouped_mm on resident bf16 weights from 256 rows per expert on",
        lambda r: r["projection"] == "layer" and r["rows_per_expert"] >= 256 and "grouped_mm" in r["peers"],
        lambda r, p, _: p["grouped_mm"]["us"] / p["quern"]["us"],
        1.0,
    ),
    (
        "a whole layer twice as fast as with dequantize + grouped_mm on gpt-oss-20b at 4096 tokens",
        lambda r: r["projection"] == "layer" and r["model"] == "gpt-oss-20b" and r["tokens"] == 4096 and "dequant+gmm" in r["peers"],
        lambda r, p, _: p["dequant+gmm"]["us"] / p["quern"]["us"],
        2.0,
    ),
    (
        "a projection twice as fast as dequantize + grouped_mm on gpt-oss-20b at 4096 tokens",
        lambda r: r["projection"] != "layer" and r["model"] == "gpt-oss-20b" and r["tokens"] == 4096 and "dequant+gmm" in r["peers"],
        lambda r, p, _: p["dequant+gmm"]["us"] / p["quern"]["us"],
        2.0,
    ),
    (
        "0.8 of dense cuBLAS at equal operations from 256 rows per expert on",
        lambda r: r["projection"] != "layer" and r["rows_per_expert"] >= 256 and "dense" in r["peers"],
        lambda r, p, _: p["dense"]["us"] / p["quern"]["us"],
        0.8,
    ),
    (
        "70 % of the measured copy bandwidth up to 16 rows per expert",
        lambda r: r["projection"] != "layer" and r["rows_per_expert"] <= 16,
        lambda r, p, ceiling: p["quern"]["gbps"] * 1e9 / ceiling[1],
        0.7,
    ),
]


def verdicts(records, ceiling):
    """One line per goal: how many of the cases that count reach it, and the worst. A goal that nothing was measured for says so."""
    out = []
    for text, counts, ratio, least in GOALS:
        found = [(ratio(r, r["peers"], ceiling), r["case"]) for r in records if "quern" in r["peers"] and counts(r)]
        if not found:
            out.append(f"goal: {text}: not measured")
            continue
        reached, (worst, case) = sum(value >= least for value, _ in found), min(found)
        word = "met" if reached == len(found) else "MISSED"
        out.append(f"goal: {text}: {word} in {reached} of {len(found)} cases, worst {worst:.2f} (goal {least}) at {case}")
    return out
