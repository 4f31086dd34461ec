// Controls one headless Chromium page: reads actions as lines of JSON from stdin, answers each with a line on stdout.
//   node browser.mjs PLAYWRIGHT_CORE CHROMIUM          {"do": "press", "args": ["Tab"]}  ->  {"value": null}
// Must not know VS Code or Gesso.

import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';

const [playwright, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const context = await browser.newContext({ viewport: { width: 1200, height: 700 }, colorScheme: 'dark' });
const page = await context.newPage();
const log = [];
page.on('console', (message) => log.push(message.text()));

const actions = {
    open: (url) => page.goto(url, { timeout: 60_000 }),
    press: (key) => page.keyboard.press(key),
    type: (text, delay) => page.keyboard.type(text, { delay }),
    click: (selector) => page.locator(selector).first().click({ timeout: 5_000 }),
    double_click: (selector) => page.locator(selector).first().dblclick({ timeout: 5_000 }),
    count: (selector) => page.locator(selector).count(),
    texts: (selector) => page.locator(selector).allTextContents(),
    attributes: (selector, name) =>
        page.locator(selector).evaluateAll((found, wanted) => found.map((one) => one.getAttribute(wanted)), name),
    after: (selector) =>
        page.locator(selector).evaluateAll((found) => found.map((one) => getComputedStyle(one, '::after').content)),
    screenshot: (path, clip) => page.screenshot({ path, clip }),
    console: () => log.splice(0),
};

for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, args } = JSON.parse(line);
    let answer;
    try {
        const value = await actions[name](...args);
        answer = { value: ['open', 'screenshot'].includes(name) ? null : (value ?? null) };
    } catch (error) {
        answer = { error: String(error) };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
}
await browser.close();
