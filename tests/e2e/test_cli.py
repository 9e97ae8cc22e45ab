"""usagectl as a person meets it: answers that say what to type, figures that agree with the table."""

import csv
import io
import json
import os
import re
import shlex
from decimal import Decimal

from harness import ROOT, Stack, check, equal, matches
from runner import shared, test


def running():
    s = Stack(sim={"accounts": 20, "anthropic": 1, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"})
    s.start_all()
    s.add_accounts(range(3))
    s.run()
    return s


@test("usagectl: a mistyped command or option says what was meant, exit 2")
def _():
    s = shared(running)
    for args, words in ((["statsu"], "status"), (["acount", "list"], "account"), (["account", "lst"], "list"),
                        (["run", "--wat"], "--wait"), (["usage", "--format", "xml"], "table|csv|json"), (["usage", "--by", "colour"], "model")):
        done = s.usagectl(*args, code=2)
        matches(words, done.err, f"usagectl {' '.join(args)}")
    equal(s.usagectl("--help").code, 0, "--help")


@test("usagectl: a mistyped account name is answered with the names there are")
def _():
    s = shared(running)
    for args in (["account", "show", "sim-00000"], ["run", "--account", "sim-00000"], ["account", "disable", "sim-00000"]):
        done = s.usagectl(*args, code=None)
        check(done.code in (1, 2), f"{args}: exit status {done.code}")
        matches("sim-00000", done.err, f"usagectl {args}")


@test("usagectl account: list, show, disable, enable, remove")
def _():
    s = shared(running)
    s.add_accounts([7])
    matches("sim-000007", s.usagectl("account", "list").out, "account list")
    matches("sim-000007.*openai|openai.*sim-000007", s.usagectl("account", "show", "sim-000007").out, "account show")
    s.usagectl("account", "disable", "sim-000007")
    s.sim.clear_stats()
    s.run()
    equal(s.sim.requests(7), [], "requests of a disabled account")
    s.usagectl("account", "enable", "sim-000007")
    s.run()
    s.compare([7])
    done = s.usagectl("account", "add", "sim-000007", "--provider", "openai", "--key-file", "-", text=s.sim.key(7), code=None)
    check(done.code in (1, 2), "a name that is taken was added again")
    matches("sim-000007", done.err, "a name that is taken")
    s.usagectl("account", "remove", "sim-000007", "--yes", code=None)


@test("usagectl account check: yes for a good key, and why not for a bad one")
def _():
    s = shared(running)
    equal(s.usagectl("account", "check", "sim-000000").code, 0, "a good key")
    s.sim.set_key(1, revoked=True)
    done = s.usagectl("account", "check", "sim-000001", code=1)
    matches("auth_invalid|key", done.out + done.err, "a revoked key")
    s.sim.set_key(1, revoked=False)


@test("usagectl usage and cost agree with the table, in every format")
def _():
    s = shared(running)
    for command, column, sql in (("usage", "input_tokens", "SELECT sum(input_tokens) FROM usage_metrics"),
                                 ("cost", "cost", "SELECT sum(cost_amount) FROM usage_metrics")):
        total = s.value(sql)
        rows = json.loads(s.usagectl(command, "--by", "account", "--since", "2000-01-01", "--format", "json").out, parse_float=str)
        rows = rows if isinstance(rows, list) else rows.get("rows")
        key = next((k for k in rows[0] if k.startswith(column)), None)
        check(key, f"{command} --format json has no {column}: {rows[0]}")
        equal(sum(Decimal(str(r[key] or 0)) for r in rows), Decimal(total), f"{command}: sum over the accounts")
        table = list(csv.reader(io.StringIO(s.usagectl(command, "--by", "account", "--since", "2000-01-01", "--format", "csv").out)))
        equal(len(table) - 1, len(rows), f"{command}: rows as csv and as json")
        matches("sim-000002", s.usagectl(command, "--by", "account", "--since", "2000-01-01").out, f"{command} as a table")


@test("usagectl doctor and status: all is well; and what to do when it is not")
def _():
    s = shared(running)
    s.run()
    s.usagectl("doctor")
    matches("sim-000000|accounts", s.usagectl("status").out, "status")
    s.sim.fault(account=2, feed="costs", do="status", status=403)
    s.run(code=1)
    done = s.usagectl("doctor", code=1)
    matches("sim-000002.*(scope|right|permission)", done.out + done.err, "doctor")
    s.sim.clear_faults()
    s.run()


@test("usagectl keygen: a key that the stages take, twice different")
def _():
    s = shared(running)
    one, two = (s.usagectl("keygen").out.strip() for _ in range(2))
    check(one != two and len(one) >= 43, f"keygen: {one!r}, {two!r}")


@test("README: every usagectl line in it is one that usagectl knows")
def _():
    s = shared(running)
    path = os.path.join(ROOT, "README.md")
    check(os.path.exists(path), "no README.md")
    with open(path, encoding="utf-8") as f:
        blocks = re.findall(r"```sh\n(.*?)```", f.read(), re.S)
    lines = [line.strip().lstrip("$ ") for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    commands = [line for line in lines if re.match(r"(build/bin/|deploy/)?(usagectl)\b", line)]
    check(commands, "README.md shows no usagectl command")
    for name, number in (("acme.key", 9), ("acme-claude.key", 20)):
        with open(os.path.join(s.folder, name), "w", encoding="ascii") as f:
            f.write(s.sim.key(number) + "\n")
    for line in commands:
        words = shlex.split(line.split("#")[0].split("|")[0].split(">")[0])[1:]
        if words[:2] == ["account", "add"]:
            # it must not reach the provider itself
            words += ["--base-url", s.sim.base_urls[words[words.index("--provider") + 1]]]
        done = s.usagectl(*words, code=None)
        equal(done.code, 0, f"{line}: exit status\n{done.out}{done.err}")
