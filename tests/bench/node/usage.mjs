/* usage.mjs - what one would write instead of the pipeline: OpenAI accounts into Postgres, by one process.
 *
 * Reads all accounts 64 at once, one request in flight for a key, and upserts their rows in batches.
 * Usage: DATABASE_URL=... node usage.mjs BASE_URL KEYS_FILE TABLE fetch|dispatch
 * KEYS_FILE has NAME,KEY a line; the account in line n is number n. Each line of stdin asks for a cycle,
 * {"first":1,"last":300,"from":{"completions":1795564800,...}} (the feeds that are read), and is answered with a line when it is committed. An error ends it. */
import crypto from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import pg from "pg";
import { Pool } from "undici";

const AT_ONCE = 64;
const BATCH_ROWS = 1000;
const CONNECTIONS = 4;

const EXTRA = ["input_uncached_tokens", "input_text_tokens", "input_image_tokens", "input_cached_text_tokens",
    "input_cached_audio_tokens", "input_cached_image_tokens", "output_text_tokens", "output_image_tokens"];
const OWNER = ["project_id", "user_id", "api_key_id"];
const usage = (name, groups, more = {}) =>
    ({ name, path: `usage/${name}`, groups, width: "1h", seconds: 3600, limit: 168, unit: null, dims: [], extra: [], ...more });
const FEEDS = [
    usage("completions", [...OWNER, "model", "batch", "service_tier"], { extra: EXTRA }),
    usage("embeddings", [...OWNER, "model"]),
    usage("moderations", [...OWNER, "model"]),
    usage("images", [...OWNER, "model", "size", "source"], { unit: "images", unitField: "images", dims: ["size", "source"] }),
    usage("audio_speeches", [...OWNER, "model"], { unit: "characters", unitField: "characters" }),
    usage("audio_transcriptions", [...OWNER, "model"], { unit: "seconds", unitField: "seconds" }),
    usage("vector_stores", ["project_id"], { unit: "bytes", unitField: "usage_bytes" }),
    usage("code_interpreter_sessions", ["project_id"], { unit: "sessions", unitField: "num_sessions" }),
    usage("file_search_calls", [...OWNER, "vector_store_id"], { unit: "calls", unitField: "num_requests", dims: ["vector_store_id"] }),
    usage("web_search_calls", [...OWNER, "model", "context_level"], { unit: "calls", unitField: "num_requests", dims: ["context_level"] }),
    usage("costs", ["project_id", "line_item", "api_key_id"], { path: "costs", width: "1d", seconds: 86400, limit: 180 }),
].map((feed) => ({ ...feed, query: `&bucket_width=${feed.width}&limit=${feed.limit}${feed.groups.map((g) => `&group_by=${g}`).join("")}` }));

/* The columns that a batch brings as arrays, with their types. */
const COLUMNS = Object.entries({
    account_id: "bigint", feed: "text", bucket_start: "bigint", bucket_seconds: "int", row_key: "uuid", row_hash: "bigint",
    project_id: "text", user_id: "text", api_key_id: "text", model: "text", service_tier: "text", batch: "boolean",
    line_item: "text", dims: "jsonb", input_tokens: "bigint", cached_input_tokens: "bigint", cache_write_tokens: "bigint",
    input_audio_tokens: "bigint", output_audio_tokens: "bigint", output_tokens: "bigint", num_requests: "bigint",
    quantity: "numeric", quantity_unit: "text", cost_amount: "numeric", currency: "text", extra: "jsonb",
});
const MEASURES = COLUMNS.slice(14).map(([name]) => name);

const [baseUrl, keysFile, table, client] = process.argv.slice(2);
const keys = readFileSync(keysFile, "utf8").trim().split("\n").map((line) => line.slice(line.indexOf(",") + 1));
const { origin, pathname } = new URL(baseUrl);
const http = new Pool(origin, { connections: AT_ONCE });
const database = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CONNECTIONS });

/* A row that is as it was is not written again. */
const upsert = {
    name: "upsert",
    text: `INSERT INTO ${table} AS t (provider, first_seen_at, changed_at, job_id, ${COLUMNS.map(([name]) => name).join(", ")})
           SELECT 'openai', now(), now(), $1, ${COLUMNS.map(([name]) => (name === "bucket_start" ? "to_timestamp(bucket_start)" : name)).join(", ")}
           FROM unnest(${COLUMNS.map(([, type], i) => `$${i + 2}::${type}[]`).join(", ")}) AS r(${COLUMNS.map(([name]) => name).join(", ")})
           ON CONFLICT (account_id, bucket_start, row_key) DO UPDATE SET row_hash = excluded.row_hash, changed_at = excluded.changed_at,
           job_id = excluded.job_id, ${MEASURES.map((name) => `${name} = excluded.${name}`).join(", ")}
           WHERE t.row_hash <> excluded.row_hash`,
};

const md5 = crypto.hash ? (text) => crypto.hash("md5", text) : (text) => crypto.createHash("md5").update(text).digest("hex");

/* As one would write it first. */
async function byFetch({ path, headers }) {
    const answer = await fetch(origin + path, { headers });
    return { status: answer.status, text: await answer.text() };
}

/* By dispatch(): request() makes a stream of each body, which costs a tenth more CPU, and fetch() far more. */
const byDispatch = (what) => new Promise((resolve, reject) => {
    const chunks = [];
    let status;
    http.dispatch(what, {
        onConnect() {},
        onHeaders(code) { status = code; return true; },
        onData(chunk) { chunks.push(chunk); return true; },
        onComplete() { resolve({ status, text: (chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)).toString() }); },
        onError: reject,
    });
});

const get = client === "fetch" ? byFetch : byDispatch;

/* Money must not go through a double, and JSON.parse knows nothing else: such numbers become texts first. */
function parse(body, feed) {
    return JSON.parse(feed.name === "costs" ? body.replace(/"(value|quantity)":\s*(-?[\d.eE+-]+)/g, '"$1":"$2"') : body);
}

const members = (result, names) => {
    const there = names.filter((name) => result[name] != null);
    return there.length ? JSON.stringify(result, there) : null;
};

class Batch {
    columns = COLUMNS.map(() => []);
    rows = 0;

    add(account, feed, start, r) {
        const named = [r.project_id, r.user_id, r.api_key_id, r.model, r.service_tier, r.batch, r.line_item, members(r, feed.dims)];
        const measured = [r.input_tokens, r.input_cached_tokens, r.input_cache_write_tokens, r.input_audio_tokens, r.output_audio_tokens,
            r.output_tokens, r.num_model_requests, feed.unit ? r[feed.unitField] : r.quantity, feed.unit ?? r.quantity_unit,
            r.amount?.value, r.amount?.currency.toUpperCase(), members(r, feed.extra)];
        // 52 bits of the digest: a number that JavaScript holds
        const values = [account, feed.name, start, feed.seconds, md5(JSON.stringify([feed.name, feed.seconds, named])),
            parseInt(md5(JSON.stringify(measured)).slice(0, 13), 16), ...named, ...measured];
        for (let i = 0; i < values.length; i++) this.columns[i].push(values[i] ?? null);
        this.rows++;
    }
}

class Cycle {
    job = crypto.randomUUID();
    batch = new Batch();
    writing = new Set();
    requests = 0;
    rows = 0;

    async run({ first, last, from }) {
        let next = first;
        const reader = async () => {
            while (next <= last) await this.readAccount(next++, from);
        };
        await Promise.all(Array.from({ length: AT_ONCE }, reader));
        this.flush();
        await Promise.all(this.writing);
        return { accounts: last - first + 1, requests: this.requests, rows: this.rows };
    }

    async readAccount(account, from) {
        for (const feed of FEEDS.filter(({ name }) => name in from)) {
            let page = null;
            do {
                const answer = await this.ask(account, feed, from[feed.name], page);
                for (const bucket of answer.data) for (const result of bucket.results) this.batch.add(account, feed, bucket.start_time, result);
                if (this.batch.rows >= BATCH_ROWS) this.flush();
                if (this.writing.size > 2 * CONNECTIONS) await Promise.race(this.writing); // Postgres sets the pace
                page = answer.has_more ? answer.next_page : null;
            } while (page);
        }
    }

    async ask(account, feed, from, page) {
        const { status, text } = await get({
            path: `${pathname}/organization/${feed.path}?start_time=${from}${feed.query}${page ? `&page=${encodeURIComponent(page)}` : ""}`,
            method: "GET",
            headers: { authorization: `Bearer ${keys[account - 1]}` },
        });
        if (status !== 200) throw new Error(`account ${account}, ${feed.name}: HTTP ${status} ${text}`);
        this.requests++;
        return parse(text, feed);
    }

    flush() {
        if (this.batch.rows === 0) return;
        const { columns, rows } = this.batch;
        this.batch = new Batch();
        this.rows += rows;
        const write = database.query({ ...upsert, values: [this.job, ...columns] }).finally(() => this.writing.delete(write));
        this.writing.add(write);
    }
}

for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await new Cycle().run(JSON.parse(line))));
}
await http.close();
await database.end();
