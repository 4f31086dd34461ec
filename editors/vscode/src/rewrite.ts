// Rewrites the selection by an instruction. The lines are shown in the text as they are written, old ones struck and new
// ones beside them; then the user accepts or discards the change, which is one undo step.
//
// The context key `gesso.rewriteShown` is set while a whole change is shown.

import * as vscode from 'vscode';
import { type LanguageClient, ProgressType } from 'vscode-languageclient/node';
import type { Gesso } from './gesso';
import { lineDiff } from './lineDiff';

const MOST_SHOWN = 300; // characters of new text beside a line

interface Outcome {
    applied: boolean;
    text: string;
    reason: string | null;
}

/** The document's lines [start, end) become `text`, or its beginning. */
interface Lines {
    readonly start: number;
    readonly end: number;
    readonly text: string;
}

interface Rewrite {
    readonly document: vscode.TextDocument;
    readonly version: number;
    readonly range: vscode.Range;
    lines: Lines | undefined;
    text: string | undefined; // once it is complete
}

export class Rewrites implements vscode.Disposable {
    client: LanguageClient | undefined;
    private current: Rewrite | undefined;
    private request: vscode.CancellationTokenSource | undefined;
    private tokens = 0;
    private readonly oldLines = vscode.window.createTextEditorDecorationType({
        textDecoration: 'line-through',
        backgroundColor: new vscode.ThemeColor('diffEditor.removedTextBackground'),
    });
    private readonly newLines = vscode.window.createTextEditorDecorationType({
        after: {
            backgroundColor: new vscode.ThemeColor('diffEditor.insertedTextBackground'),
            color: new vscode.ThemeColor('editor.foreground'),
            margin: '0 0 0 1em',
        },
    });
    private readonly subscriptions = [
        this.oldLines,
        this.newLines,
        vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
            if (document === this.current?.document && contentChanges.length > 0) {
                this.discard();
            }
        }),
        vscode.window.onDidChangeVisibleTextEditors(() => this.draw()),
    ];

    constructor(private readonly gesso: Gesso) {}

    /** Asks for an instruction, and rewrites the selection or the line. */
    async rewriteSelection(): Promise<void> {
        const editor = vscode.window.activeTextEditor;
        if (editor === undefined) {
            return;
        }
        const { document, selection } = editor;
        const line = document.lineAt(selection.active.line).range;
        const range = selection.isEmpty ? line : new vscode.Range(selection.start, selection.end);
        const version = document.version;
        const instruction = await vscode.window.showInputBox({
            title: 'Rewrite the Selection',
            prompt: 'What to change',
            placeHolder: 'return early when the list is empty',
        });
        if (!instruction?.trim()) {
            return;
        }
        this.discard();
        if (document.version !== version) {
            void vscode.window.showWarningMessage('Gesso: The text has changed; select the code again.');
            return;
        }
        const rewrite: Rewrite = { document, version, range, lines: undefined, text: undefined };
        this.current = rewrite;
        editor.selection = new vscode.Selection(range.start, range.start);
        const outcome = await this.write(rewrite, instruction);
        if (this.current !== rewrite) {
            return;
        }
        if (!outcome || outcome.reason) {
            this.discard();
            if (outcome?.reason) {
                void vscode.window.showWarningMessage(`Gesso: ${outcome.reason}`);
            }
            return;
        }
        rewrite.text = outcome.text;
        rewrite.lines = wholeLines(rewrite, outcome.text);
        void vscode.commands.executeCommand('setContext', 'gesso.rewriteShown', true);
        this.draw();
        const choice = await vscode.window.showInformationMessage(
            `Gesso: ${instruction.trim()}`,
            'Accept (Tab)',
            'Discard (Escape)',
        );
        if (this.current === rewrite && choice !== undefined) {
            await (choice.startsWith('Accept') ? this.accept() : this.discard());
        }
    }

    /** Replaces the code, in one undo step. */
    async accept(): Promise<void> {
        const rewrite = this.current;
        if (rewrite?.text === undefined) {
            return;
        }
        const { document, version, range, text } = rewrite;
        this.discard();
        if (document.version === version) {
            const edit = new vscode.WorkspaceEdit();
            edit.replace(document.uri, range, text);
            await vscode.workspace.applyEdit(edit);
        }
    }

    /** Ends the request and hides the change. */
    discard(): void {
        this.request?.cancel();
        this.request = this.current = undefined;
        void vscode.commands.executeCommand('setContext', 'gesso.rewriteShown', false);
        this.draw();
    }

    dispose(): void {
        this.discard();
        this.subscriptions.forEach((one) => one.dispose());
    }

    /** Has the model write, and shows its lines. */
    private async write(rewrite: Rewrite, instruction: string): Promise<Outcome | undefined> {
        const token = `rewrite ${++this.tokens}`;
        const listener = this.client?.onProgress(new ProgressType<Lines>(), token, (lines) => {
            if (this.current === rewrite) {
                rewrite.lines = lines;
                this.draw();
            }
        });
        const request = (this.request = new vscode.CancellationTokenSource());
        const progress = { location: vscode.ProgressLocation.Notification, title: 'Gesso: rewriting', cancellable: true };
        try {
            return await vscode.window.withProgress(progress, async (_, byUser) => {
                byUser.onCancellationRequested(() => request.cancel());
                const range = this.client?.code2ProtocolConverter.asRange(rewrite.range);
                const args = [rewrite.document.uri.toString(), range, instruction];
                const options = { progress: token, apply: false };
                return this.gesso.executeUntil<Outcome>(request.token, 'gesso.edit', ...args, options);
            });
        } catch (error) {
            if (request.token.isCancellationRequested) {
                return undefined;
            }
            this.discard();
            throw error;
        } finally {
            listener?.dispose();
        }
    }

    private draw(): void {
        for (const editor of vscode.window.visibleTextEditors) {
            const isHere = editor.document === this.current?.document && this.current.lines !== undefined;
            const [old, now] = isHere ? decorations(this.current!) : [[], []];
            editor.setDecorations(this.oldLines, old);
            editor.setDecorations(this.newLines, now);
        }
    }
}

/** The whole lines that the range has after the change. */
function wholeLines({ document, range }: Rewrite, text: string): Lines {
    const [first, last] = [document.lineAt(range.start.line), document.lineAt(range.end.line)];
    const before = document.getText(new vscode.Range(first.range.start, range.start));
    const after = document.getText(new vscode.Range(range.end, last.range.end));
    return { start: first.lineNumber, end: last.lineNumber + 1, text: before + text + after };
}

/** The old lines that are struck, and the new ones beside them. */
function decorations({ document, lines, text }: Rewrite): [vscode.Range[], vscode.DecorationOptions[]] {
    const { start, end, text: written } = lines!;
    const old = Array.from({ length: end - start }, (_, index) => document.lineAt(start + index).text);
    const now = written.split(/\r?\n/);
    let hunks = lineDiff(old, now);
    const last = hunks.at(-1);
    if (text === undefined && last !== undefined && last.end === old.length) {
        // What is not written yet is not removed.
        const end = Math.min(last.end, last.start + last.lines.length);
        hunks = [...hunks.slice(0, -1), { ...last, end }];
    }
    const struck: vscode.Range[] = [];
    const added: vscode.DecorationOptions[] = [];
    for (const hunk of hunks) {
        for (let line = hunk.start; line < hunk.end; line++) {
            const { range, firstNonWhitespaceCharacterIndex } = document.lineAt(start + line);
            struck.push(new vscode.Range(range.start.translate(0, firstNonWhitespaceCharacterIndex), range.end));
        }
        const rows = Math.max(1, hunk.end - hunk.start);
        const anchor = Math.max(0, hunk.end > hunk.start ? hunk.start : hunk.start - 1);
        for (let row = 0; row < rows && row < hunk.lines.length; row++) {
            const isLast = row === rows - 1;
            const parts = isLast ? hunk.lines.slice(row) : [hunk.lines[row]];
            const end = document.lineAt(start + anchor + row).range.end;
            const contentText = beside(parts, hunk.end === hunk.start);
            added.push({ range: new vscode.Range(end, end), renderOptions: { after: { contentText } } });
        }
    }
    return [struck, added];
}

/** Lines as they are shown in one. */
function beside(lines: readonly string[], isBelow: boolean): string {
    const line = (isBelow ? '⏎ ' : '') + lines.map((one) => one.trim()).join(' ⏎ ');
    return line.length <= MOST_SHOWN ? line : `${line.slice(0, MOST_SHOWN - 1)}…`;
}
