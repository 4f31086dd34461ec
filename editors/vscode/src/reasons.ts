// "Why nothing?": shows the server's records of the last requests, as a list and as a document.

import * as vscode from 'vscode';

/** One request, from the server's command gesso.whyNothing. Times are in milliseconds, `at` in seconds. */
export interface RequestRecord {
    readonly at: number;
    readonly document: number;
    readonly language: string | null;
    readonly line: number;
    readonly outcome: 'shown' | 'nothing' | 'superseded' | 'failed';
    readonly rule: string | null;
    readonly sentence: string | null;
    readonly origin: string | null;
    readonly timings_ms: Readonly<Record<string, number>>;
    readonly total_ms: number;
    readonly characters: number;
    readonly confidence: number | null;
}

const ICONS = { shown: '$(check)', nothing: '$(circle-slash)', superseded: '$(debug-step-over)', failed: '$(error)' };
const LIST_LIMIT = 50;
const DOCUMENT = vscode.Uri.from({ scheme: 'gesso', path: 'Why nothing.md' });
let documentText = '';

/** Provides the text of a read-only document, which VS Code never asks to save. */
export function registerReasonsDocument(): vscode.Disposable {
    const provider = { provideTextDocumentContent: () => documentText };
    return vscode.workspace.registerTextDocumentContentProvider(DOCUMENT.scheme, provider);
}

/** Whether a record explains anything: after most edits no next edit is due. */
function isInformative(record: RequestRecord): boolean {
    const isUsual = record.outcome !== 'shown' && record.rule !== 'asleep' && record.rule !== 'ignored';
    return record.origin !== 'next edit' || !isUsual;
}

/** Lists the records, newest first. Choosing one opens all of them as a document. */
export async function showReasons(all: readonly RequestRecord[], copyReport: () => void): Promise<void> {
    const records = all.filter(isInformative);
    if (records.length === 0) {
        void vscode.window.showInformationMessage('There have been no requests yet. Type something, then try again.');
        return;
    }
    const list = vscode.window.createQuickPick();
    list.title = 'Gesso: Why Nothing? The last requests, newest first';
    list.placeholder = 'Choose one to open all of them as a document';
    list.buttons = [{ iconPath: new vscode.ThemeIcon('copy'), tooltip: 'Copy a report without code' }];
    list.matchOnDescription = list.matchOnDetail = true;
    list.items = records.slice(0, LIST_LIMIT).map((record) => ({
        label: `${ICONS[record.outcome]} ${sentence(record)}`,
        description: `line ${record.line}, ${time(record)}`,
        detail: details(record),
    }));
    list.onDidTriggerButton(() => copyReport());
    list.onDidAccept(async () => {
        list.hide();
        documentText = asMarkdown(records);
        const uri = DOCUMENT.with({ query: String(Date.now()) });
        await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri), { preview: true });
    });
    list.onDidHide(() => list.dispose());
    list.show();
}

function sentence(record: RequestRecord): string {
    if (record.outcome === 'shown') {
        return `Shown: ${record.characters} characters`;
    }
    return record.outcome === 'superseded' ? 'You kept typing before it was ready.' : (record.sentence ?? 'Nothing.');
}

function details(record: RequestRecord): string {
    const stages = Object.entries(record.timings_ms).map(([stage, value]) => `${stage} ${Math.round(value)} ms`);
    const confidence = record.confidence === null ? [] : [`confidence ${record.confidence.toFixed(2)}`];
    const source = [record.rule, record.origin && `from ${record.origin}`].filter((part) => part !== null);
    return [...source, `${Math.round(record.total_ms)} ms in total`, ...stages, ...confidence].join(' · ');
}

function time(record: RequestRecord): string {
    return new Date(record.at * 1000).toLocaleTimeString();
}

function asMarkdown(records: readonly RequestRecord[]): string {
    const rows = records.map((one) => `| ${time(one)} | ${one.line} | ${sentence(one)} | ${details(one)} |`);
    const head = ['| time | line | outcome | details |', '|---|---|---|---|'];
    return ['# Why nothing?', '', 'The last requests, newest first.', '', ...head, ...rows, ''].join('\n');
}
