// The pictures of docs/img/, from the demo accounts: shots.mjs FOLDER NAME...

import { chromium } from "playwright-core";

const facts = JSON.parse(process.env.FACTS);
const [folder, ...names] = process.argv.slice(2);
const SHOTS = {
  overview: { path: "/?range=month&by=account&tz=UTC", scheme: "light", width: 1320, height: 1180 },
  accounts: { path: "/?view=accounts&tz=UTC", scheme: "light", width: 1320, height: 760 },
  pipeline: { path: "/?view=pipeline&tz=UTC", scheme: "dark", width: 1320, height: 660, wait: 24000 },
};

const browser = await chromium.launch({ executablePath: facts.chromium, args: ["--no-sandbox", "--hide-scrollbars"] });
for (const name of names) {
  const { path, scheme, width, height, wait = 1500 } = SHOTS[name];
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, timezoneId: "UTC" });
  const page = await context.newPage();
  await page.goto(facts.url + path);
  await page.waitForTimeout(wait);
  await page.screenshot({ path: `${folder}/dashboard-${name}.png` });
  await context.close();
}
await browser.close();
