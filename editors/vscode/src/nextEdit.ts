// Next edits: asks the server what the last edit makes due elsewhere, shows one proposal with decorations, and applies
// or drops it.
//
// Two context keys drive the keys: `gesso.nextEditShown` while a proposal is shown, and `gesso.nextEditTakesTab` unless
// the cursor is in the indentation of a line, where Tab indents. VS Code may run a key before it has the newest value of
// these, so that `take` checks them again.

import * as vscode from 'vscode';
import type { LanguageClient } from 'vscode-languageclient/node';

const METHOD = 'textDocument/copilotInlineEdit';
const WAIT_MS = 150;
const SCHEMES = ['file', 'untitled', 'vscode-notebook-cell'];
const MOST_SHOWN = 200; // characters of new text that are shown

type ProtocolRange = Parameters<LanguageClient['protocol2CodeConverter']['asRange']>[0];

interface ServerEdit {
    readonly range: NonNullable<ProtocolRange>;
    readonly text: string;
    readonly command: { title: string; command: string; arguments: string[] };
}

interface Place {
    readonly range: vscode.Range;
    readonly text: string;
}

interface Shown {
    readonly editor: vscode.TextEditor;
    readonly version: number;
    readonly places: readonly Place[];
    readonly command: ServerEdit['command'];
}

export class NextEdits implements vscode.Disposable {
    private running: LanguageClient | undefined;
    private shown: Shown | undefined;
    private arrivedAt: vscode.Position | undefined;
    private unanswered: { document: vscode.TextDocument; version: number; line: number } | undefined;
    private readonly edited = new WeakSet<vscode.TextDocument>();
    private timer: NodeJS.Timeout | undefined;
    private request: vscode.CancellationTokenSource | undefined;
    private readonly oldText = vscode.window.createTextEditorDecorationType({
        textDecoration: 'line-through',
        backgroundColor: new vscode.ThemeColor('diffEditor.removedTextBackground'),
    });
    private readonly newText = vscode.window.createTextEditorDecorationType({
        after: {
            backgroundColor: new vscode.ThemeColor('diffEditor.insertedTextBackground'),
            color: new vscode.ThemeColor('editor.foreground'),
        },
    });
    private readonly reason = vscode.window.createTextEditorDecorationType({
        after: { color: new vscode.ThemeColor('editorGhostText.foreground'), margin: '0 0 0 2em' },
    });
    private readonly subscriptions = [
        this.oldText,
        this.newText,
        this.reason,
        vscode.workspace.onDidChangeTextDocument((change) => this.changed(change)),
        vscode.window.onDidChangeActiveTextEditor((editor) => this.activated(editor)),
        vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => this.moved(textEditor)),
        vscode.window.onDidChangeTextEditorVisibleRanges(() => this.draw()),
    ];

    set client(client: LanguageClient | undefined) {
        this.running = client;
        this.clear();
    }

    /**
     * Goes to the proposal if it is off screen, otherwise applies all of it, in one undo step.
     *
     * byTab: the user pressed Tab, which indents where it does not take a proposal.
     */
    async take(byTab: boolean): Promise<void> {
        const shown = this.current();
        if (byTab && !(shown !== undefined && this.takesTab(shown.editor))) {
            await vscode.commands.executeCommand('tab');
            return;
        }
        if (shown === undefined) {
            return;
        }
        const { editor, places, command } = shown;
        const first = places[0].range;
        const isVisible = editor.visibleRanges.some((visible) => visible.contains(first.start));
        if (!isVisible && !this.isAtPlace(editor)) {
            this.arrivedAt = first.start;
            editor.selection = new vscode.Selection(first.start, first.start);
            editor.revealRange(first, vscode.TextEditorRevealType.InCenter);
            return;
        }
        this.clear();
        const isApplied = await editor.edit((builder) => {
            places.forEach(({ range, text }) => builder.replace(range, text));
        });
        if (isApplied) {
            await this.execute(command.command, command.arguments);
        }
    }

    /** Hides the proposal; its kind does not come for a while. */
    async drop(): Promise<void> {
        const shown = this.current();
        this.clear();
        if (shown !== undefined) {
            await this.execute('gesso.nextEditDismissed', shown.command.arguments);
        }
    }

    /** Asks by hand. */
    async ask(): Promise<void> {
        this.clear();
        if (!(await this.propose(true))) {
            vscode.window.setStatusBarMessage('Gesso: nothing is due after the last edits.', 4000);
        }
    }

    dispose(): void {
        this.clear();
        this.subscriptions.forEach((one) => one.dispose());
    }

    private changed({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
        if (contentChanges.length === 0 || document !== vscode.window.activeTextEditor?.document) {
            return;
        }
        this.clear();
        this.edited.add(document);
        this.askSoon(document);
    }

    private activated(editor: vscode.TextEditor | undefined): void {
        this.clear();
        if (editor !== undefined && this.edited.has(editor.document)) {
            this.askSoon(editor.document);
        }
    }

    /** Asks again once the cursor leaves the line of an edit that did not seem to be finished. */
    private moved(editor: vscode.TextEditor): void {
        const asked = this.unanswered;
        const { document, selection } = editor;
        if (asked?.document === document && asked.version === document.version && asked.line !== selection.active.line) {
            this.unanswered = undefined;
            this.askSoon(document);
        }
        this.update();
    }

    private askSoon(document: vscode.TextDocument): void {
        clearTimeout(this.timer);
        if (SCHEMES.includes(document.uri.scheme)) {
            this.timer = setTimeout(() => void this.propose(false).catch(() => undefined), WAIT_MS);
        }
    }

    /** Requests a proposal and shows it; returns whether there is one. */
    private async propose(byHand: boolean): Promise<boolean> {
        const [editor, client] = [vscode.window.activeTextEditor, this.running];
        if (editor === undefined || !client?.isRunning()) {
            return false;
        }
        this.request?.cancel();
        const request = (this.request = new vscode.CancellationTokenSource());
        const { document } = editor;
        const version = document.version;
        const line = editor.selection.active.line;
        const at = client.code2ProtocolConverter.asTextDocumentPositionParams(document, editor.selection.active);
        const params = {
            ...at,
            textDocument: { ...at.textDocument, version },
            context: { triggerKind: byHand ? 1 : 2 },
        };
        const result = await client.sendRequest<{ edits: ServerEdit[] }>(METHOD, params, request.token);
        const isCurrent = document.version === version && vscode.window.activeTextEditor === editor;
        if (request.token.isCancellationRequested || !isCurrent) {
            return false;
        }
        if (result.edits.length === 0) {
            this.unanswered = { document, version, line };
            this.moved(editor);
            return false;
        }
        const asRange = (range: ServerEdit['range']) => client.protocol2CodeConverter.asRange(range)!;
        const places = result.edits.map(({ range, text }) => ({ range: asRange(range), text }));
        const command = result.edits[0].command;
        this.shown = { editor, version, places, command };
        this.update();
        this.draw();
        void client.sendNotification('textDocument/didShowInlineEdit', { item: { command } });
        return true;
    }

    private current(): Shown | undefined {
        return this.shown?.version === this.shown?.editor.document.version ? this.shown : undefined;
    }

    private clear(): void {
        clearTimeout(this.timer);
        this.request?.cancel();
        this.request = this.arrivedAt = this.unanswered = undefined;
        const shown = this.shown;
        this.shown = undefined;
        if (shown !== undefined) {
            this.update();
            [this.oldText, this.newText, this.reason].forEach((one) => shown.editor.setDecorations(one, []));
        }
    }

    private draw(): void {
        const shown = this.current();
        if (shown === undefined) {
            return;
        }
        const { editor, places, command } = shown;
        editor.setDecorations(
            this.oldText,
            places.map(({ range }) => range).filter((range) => !range.isEmpty),
        );
        editor.setDecorations(
            this.newText,
            places.map(({ range, text }) => ({
                range: new vscode.Range(range.end, range.end),
                renderOptions: { after: { contentText: asLine(text) } },
            })),
        );
        const first = places[0].range.start;
        const isVisible = editor.visibleRanges.some((visible) => visible.contains(first));
        const line = isVisible ? first.line : editor.selection.active.line;
        const end = editor.document.lineAt(line).range.end;
        const contentText = isVisible ? command.title : `line ${first.line + 1}: ${command.title}`;
        editor.setDecorations(this.reason, [
            { range: new vscode.Range(end, end), renderOptions: { after: { contentText } } },
        ]);
    }

    /** Sets the context keys. */
    private update(): void {
        const shown = this.current();
        void vscode.commands.executeCommand('setContext', 'gesso.nextEditShown', shown !== undefined);
        const takesTab = shown !== undefined && this.takesTab(shown.editor);
        void vscode.commands.executeCommand('setContext', 'gesso.nextEditTakesTab', takesTab);
    }

    private takesTab(editor: vscode.TextEditor): boolean {
        const { document, selection } = editor;
        const left = document.lineAt(selection.active.line).text.slice(0, selection.active.character);
        return selection.isEmpty && (this.isAtPlace(editor) || left.trim() !== '');
    }

    /** Whether Tab moved the cursor to the proposal. */
    private isAtPlace({ selection }: vscode.TextEditor): boolean {
        return this.arrivedAt !== undefined && selection.active.isEqual(this.arrivedAt);
    }

    private async execute(command: string, args: string[]): Promise<void> {
        if (this.running?.isRunning()) {
            await this.running.sendRequest('workspace/executeCommand', { command, arguments: args });
        }
    }
}

/** New text as it is shown in one line. */
function asLine(text: string): string {
    const line = text.replace(/\r?\n[ \t]*/g, ' ⏎ ');
    return line.length <= MOST_SHOWN ? line : `${line.slice(0, MOST_SHOWN - 1)}…`;
}
