// "Why nothing?": the server's notes on the last requests, as a list and as a document.

import * as vscode from 'vscode';

/** One request, as the server's command gesso.whyNothing gives it. Times in milliseconds, `at` in seconds. */
export interface Note {
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
const LISTED = 50;
const PAGE = vscode.Uri.from({ scheme: 'gesso', path: 'Why nothing.md' });
let page = '';

/** Lets VS Code read the document, which is nobody's file and asks to be saved by nobody. */
export function registerPage(): vscode.Disposable {
    return vscode.workspace.registerTextDocumentContentProvider(PAGE.scheme, { provideTextDocumentContent: () => page });
}

/** A list, newest first; what is chosen there opens the whole as a document. */
export async function showReasons(notes: readonly Note[], copyReport: () => void): Promise<void> {
    if (notes.length === 0) {
        void vscode.window.showInformationMessage('Gesso has not been asked for a suggestion yet. Type something.');
        return;
    }
    const list = vscode.window.createQuickPick();
    const report = { iconPath: new vscode.ThemeIcon('copy'), tooltip: 'Copy a report without code' };
    list.title = 'Gesso: Why Nothing? The last requests, newest first';
    list.placeholder = 'Choose one to open them all as a document';
    list.buttons = [report];
    list.matchOnDescription = list.matchOnDetail = true;
    list.items = notes.slice(0, LISTED).map((note) => ({
        label: `${ICONS[note.outcome]} ${sentence(note)}`,
        description: `line ${note.line}, ${time(note)}`,
        detail: details(note),
    }));
    list.onDidTriggerButton(() => copyReport());
    list.onDidAccept(async () => {
        list.hide();
        page = asMarkdown(notes);
        const uri = PAGE.with({ query: String(Date.now()) });
        await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri), { preview: true });
    });
    list.onDidHide(() => list.dispose());
    list.show();
}

function sentence(note: Note): string {
    if (note.outcome === 'shown') {
        return `Shown: ${note.characters} characters`;
    }
    return note.outcome === 'superseded' ? 'You typed on before it was ready.' : (note.sentence ?? 'Nothing.');
}

function details(note: Note): string {
    const stages = Object.entries(note.timings_ms).map(([stage, value]) => `${stage} ${Math.round(value)} ms`);
    const confidence = note.confidence === null ? [] : [`confidence ${note.confidence.toFixed(2)}`];
    const whence = [note.rule, note.origin && `from ${note.origin}`].filter((one) => one !== null);
    return [...whence, `${Math.round(note.total_ms)} ms in all`, ...stages, ...confidence].join(' · ');
}

function time(note: Note): string {
    return new Date(note.at * 1000).toLocaleTimeString();
}

function asMarkdown(notes: readonly Note[]): string {
    const rows = notes.map((note) => `| ${time(note)} | ${note.line} | ${sentence(note)} | ${details(note)} |`);
    const head = ['| time | line | what came of it | details |', '|---|---|---|---|'];
    return ['# Why nothing?', '', 'The last requests, newest first.', '', ...head, ...rows, ''].join('\n');
}
