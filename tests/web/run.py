#!/usr/bin/python3
"""The dashboard in a real browser: real pipeline, real Postgres, real gateway, Debian's chromium.

usage: run.py [--only WORDS] [--shots FOLDER] [--serve]
  --shots   writes the pictures of docs/img/ into FOLDER instead of testing
  --serve   starts all and waits, to look at the page oneself
Last line: N passed, N failed.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import demo  # noqa: E402
import harness  # noqa: E402

CHROMIUM = "/usr/bin/chromium"
TOKEN = "a-token-of-the-tests-and-of-nobody-else"


def stop(message):
    print("web: " + message)
    print("0 passed, 1 failed")
    sys.exit(1)


def node_version():
    if not shutil.which("node") or not shutil.which("npm"):
        return (0,)
    text = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(n) for n in re.findall(r"\d+", text))


def need_node():
    if node_version() < (18,):
        stop("Node 18 or newer with npm is needed: apt-get install nodejs npm")
    installed = os.path.join(HERE, "node_modules", ".package-lock.json")
    if not os.path.exists(installed) or os.path.getmtime(installed) < os.path.getmtime(os.path.join(HERE, "package-lock.json")):
        if subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=False).returncode != 0:
            stop("npm ci failed in tests/web: is the npm registry reachable?")
        os.utime(installed)


def enter_own_network():
    """Starts this program again where loopback is the only network: whatever comes and goes among the machine's
    interfaces makes a browser drop its connections, and a page that needs another host fails here for sure."""
    if os.geteuid() == 0 and "UF_WEB_OWN_NETWORK" not in os.environ:
        os.environ["UF_WEB_OWN_NETWORK"] = "1"
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def gateway(stack, **env):
    """Starts one; answers its address."""
    port = free_port()
    process = stack.start("gateway", UF_HTTP=f"127.0.0.1:{port}", DATABASE_URL=stack.postgres.url("uf"),
                          CRON_API_KEY="0123456789abcdef0123456789abcdef", **env)
    stack.wait_ready(process)
    return f"http://127.0.0.1:{port}"


# ---- what is true, asked of the database by other means than the gateway's ----

def text(value):
    """A numeric or a count as the shortest decimal."""
    if value is None:
        return None
    digits = format(value, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def facts(stack):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    month = today.replace(day=1)
    recent = today - datetime.timedelta(days=29)
    last_end = month - datetime.timedelta(days=1)
    last = last_end.replace(day=1)
    same = last + (today - month)
    same = min(same, last_end)

    def billed(start, end):
        return text(stack.value("SELECT sum(cost_amount) FROM usage_metrics WHERE cost_amount IS NOT NULL AND "
                                "bucket_start >= %s AND bucket_start < %s", start, end + datetime.timedelta(days=1)))

    def tokens(where="true", start=month, end=today + datetime.timedelta(days=1), zone="UTC", what="input_tokens + output_tokens"):
        parts = " + ".join(f"coalesce(sum({p.strip()}), 0)" for p in what.split("+"))
        # in the first hours of a month there may be nothing yet, which is not zero
        return text(stack.value(f"SELECT CASE WHEN count(*) > 0 THEN {parts} END FROM usage_metrics JOIN accounts USING (account_id) WHERE cost_amount IS NULL AND "
                                f"bucket_start AT TIME ZONE %s >= %s AND bucket_start AT TIME ZONE %s < %s AND {where}",
                                zone, start, zone, end))

    columns = {"account": "name", "provider": "m.provider", "model": "model", "project": "project_id", "key": "api_key_id"}
    none = {"model": "no model", "project": "no project", "key": "no key"}
    ranked = {by: [[name if name is not None else none[by], text(n)] for name, n in stack.sql(
        f"SELECT {column}, sum(input_tokens) FROM usage_metrics m JOIN accounts USING (account_id) WHERE cost_amount IS NULL AND "
        "quantity_unit IS NULL AND bucket_start >= %s GROUP BY 1 HAVING sum(input_tokens) IS NOT NULL ORDER BY 2 DESC LIMIT 6", recent)]
        for by, column in columns.items()}
    filters = []
    for by, column in columns.items():
        value = next(name for name, _ in ranked[by] if name != none.get(by))
        column = column.replace("m.provider", "usage_metrics.provider")
        filters.append([by, value, tokens(f"{column} = '{value}'")])
    day = today - datetime.timedelta(days=4)
    yesterday = today - datetime.timedelta(days=1)
    credit = today - datetime.timedelta(days=3)
    return {
        "billed_month": billed(month, today), "billed_today": billed(today, today), "billed_same": billed(last, same),
        "billed_last": billed(last, last_end),
        "estimated_month": text(stack.value("SELECT sum(estimated_cost) FROM cost_estimate WHERE day >= %s", month)),
        "tokens_month": tokens(),
        "ranked": ranked, "filters": filters,
        "ranked_billed": [name for name, in stack.sql(
            "SELECT name FROM usage_metrics JOIN accounts USING (account_id) WHERE cost_amount IS NOT NULL AND bucket_start >= %s "
            "GROUP BY 1 ORDER BY sum(cost_amount) DESC", recent)],
        "credit": {"account": "search", "day": credit.isoformat(), "amount": "-12.503125"},
        "evening": {"zone": "America/Denver", "day": day.isoformat(),
                    "local": tokens(start=day, end=day + datetime.timedelta(days=1), zone="America/Denver", what="input_tokens"),
                    "utc": tokens(start=day, end=day + datetime.timedelta(days=1), what="input_tokens")},
        # 07:59 and 08:01 of yesterday in Shanghai
        "morning": {"before": (yesterday - datetime.timedelta(days=1)).isoformat(), "day": yesterday.isoformat(),
                    "input": tokens(start=yesterday, end=today, zone="Asia/Shanghai", what="input_tokens")},
        "states": {demo.REVOKED: "failing", demo.SCOPED: "partly failing", demo.LATE: "late", demo.UNREAD: "no data yet",
                   demo.OFF: "disabled", demo.QUIET: "zero", "acme-prod": "reported"},
        "accounts": stack.value("SELECT count(*) FROM accounts"),
    }


def shots(stack, folder, env):
    """The pictures; the pipeline's while it has something to do."""
    if not shutil.which("pngquant"):
        stop("the pictures are made small by pngquant: apt-get install pngquant")
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["node", "shots.mjs", folder, "overview", "accounts"], cwd=HERE, env=env, check=True, timeout=120)
    stack.control({"cmd": "resume"})
    with subprocess.Popen(["node", "shots.mjs", folder, "pipeline"], cwd=HERE, env=env) as busy:
        while busy.poll() is None:
            stack.usagectl("run", "--wait", code=None)
    pictures = [os.path.join(folder, f"dashboard-{name}.png") for name in ("overview", "accounts", "pipeline")]
    return subprocess.run(["pngquant", "--force", "--ext", ".png", "--strip", "--quality", "70-95", *pictures], check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--shots")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if not os.path.exists(CHROMIUM):
        stop("chromium is missing: deploy/install-deps --tests")
    need_node()
    if not args.serve:
        enter_own_network()
    template = tempfile.mkdtemp(prefix="uf-pg-", dir="/tmp")
    os.chmod(template, 0o755)
    if harness.AS_ROOT:
        shutil.chown(template, "postgres", "postgres")
    os.environ["UF_E2E_PG_TEMPLATE"] = harness.postgres_template(os.path.join(template, "data"))
    stack = None
    try:
        stack = demo.stack()
        known = facts(stack)
        known.update(url=gateway(stack), locked_url=gateway(stack, UF_DASHBOARD_TOKEN=TOKEN), token=TOKEN, chromium=CHROMIUM)
        if args.serve:
            print(json.dumps(known, indent=1))
            print(f"{known['url']}  (with a token: {known['locked_url']}, {TOKEN}); Ctrl-C ends it", flush=True)
            while True:
                time.sleep(60)
        env = {**os.environ, "FACTS": json.dumps(known), "ONLY": args.only}
        if args.shots:
            return shots(stack, os.path.abspath(args.shots), env)
        return subprocess.run(["node", "browser.mjs"], cwd=HERE, env=env, check=False, timeout=900).returncode
    except harness.Failed as failed:
        print(f"FAILED  {failed}")
        if stack:
            print(stack.log_tails())
        print("0 passed, 1 failed")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        if stack:
            stack.close()
        shutil.rmtree(template, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
