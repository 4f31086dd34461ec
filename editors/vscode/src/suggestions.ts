// Reports to the server which suggestions were shown, partly accepted and dismissed.
//
// VS Code itself reports only that a suggestion was accepted in full, through the item's command. Partial acceptance
// and dismissal are known only if they go through this extension's own commands.

import * as vscode from 'vscode';
import type { LanguageClient, Middleware } from 'vscode-languageclient/node';

interface Shown {
    readonly uri: string;
    readonly version: number;
    readonly position: vscode.Position;
    readonly items: readonly vscode.InlineCompletionItem[];
}

export class Suggestions {
    private shown: Shown | undefined;
    private extending = false; // the next request is for the rest of what is shown
    client: LanguageClient | undefined;

    readonly middleware: Middleware = {
        provideInlineCompletionItems: async (document, position, context, token, next) => {
            const triggerKind = this.extending ? vscode.InlineCompletionTriggerKind.Automatic : context.triggerKind;
            this.extending = false;
            const { version } = document;
            const result = await next(document, position, { ...context, triggerKind }, token);
            const items = Array.isArray(result) ? result : (result?.items ?? []);
            if (!token.isCancellationRequested) {
                this.shown = { uri: document.uri.toString(), version, position, items };
                if (items.length > 0) {
                    this.notify('textDocument/didShowCompletion', { item: asParams(items[0]) });
                }
            }
            return result;
        },
    };

    /** The server has more of the suggestion that a document shows. */
    async extended(uri: string): Promise<void> {
        const [shown, editor] = [this.shown, vscode.window.activeTextEditor];
        const isShown =
            shown?.uri === uri &&
            shown.items.length > 0 &&
            editor?.document.uri.toString() === uri &&
            editor.document.version === shown.version &&
            editor.selection.active.isEqual(shown.position);
        if (isShown) {
            await vscode.commands.executeCommand('editor.action.inlineSuggest.hide'); // VS Code would keep what it shows
            this.extending = true;
            await vscode.commands.executeCommand('editor.action.inlineSuggest.trigger');
        }
    }

    /** Accepts the next word or line with VS Code's command and reports the accepted length to the server. */
    async acceptPart(command: 'acceptNextWord' | 'acceptNextLine'): Promise<void> {
        const items = this.itemsOf(vscode.window.activeTextEditor);
        await vscode.commands.executeCommand(`editor.action.inlineSuggest.${command}`);
        const editor = vscode.window.activeTextEditor;
        for (const item of editor ? items : []) {
            const accepted = item.range && textUpToCursor(editor!, item.range.start);
            if (accepted && textOf(item).startsWith(accepted)) {
                const params = { item: asParams(item), acceptedLength: accepted.length };
                this.notify('textDocument/didPartiallyAcceptCompletion', params);
                return;
            }
        }
    }

    /** Hides the suggestion and reports to the server that it was rejected. */
    async dismiss(): Promise<void> {
        const items = this.itemsOf(vscode.window.activeTextEditor);
        this.shown = undefined;
        await vscode.commands.executeCommand('editor.action.inlineSuggest.hide');
        for (const item of items) {
            const params = { command: 'gesso.rejected', arguments: item.command?.arguments };
            await this.client?.sendRequest('workspace/executeCommand', params);
        }
    }

    private itemsOf(editor: vscode.TextEditor | undefined): readonly vscode.InlineCompletionItem[] {
        return this.shown?.uri === editor?.document.uri.toString() ? (this.shown?.items ?? []) : [];
    }

    private notify(method: string, params: object): void {
        if (this.client?.isRunning()) {
            void this.client.sendNotification(method, params);
        }
    }
}

function textUpToCursor(editor: vscode.TextEditor, start: vscode.Position): string {
    const cursor = editor.selection.active;
    return cursor.isAfter(start) ? editor.document.getText(new vscode.Range(start, cursor)) : '';
}

function textOf(item: vscode.InlineCompletionItem): string {
    return typeof item.insertText === 'string' ? item.insertText : item.insertText.value;
}

function asParams(item: vscode.InlineCompletionItem): object {
    return { insertText: textOf(item), range: item.range, command: item.command };
}
