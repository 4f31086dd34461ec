// What was given to the editor, so that the server can be told what became of it.
//
// VS Code tells an extension when a suggestion is accepted whole (by the item's command) and nothing else. What goes
// through this extension's own commands is told besides: accepted in part, and dismissed.

import * as vscode from 'vscode';
import type { LanguageClient, Middleware } from 'vscode-languageclient/node';

interface Given {
    readonly uri: string;
    readonly items: readonly vscode.InlineCompletionItem[];
}

export class Suggestions {
    private given: Given | undefined;
    client: LanguageClient | undefined;

    readonly middleware: Middleware = {
        provideInlineCompletionItems: async (document, position, context, token, next) => {
            const answer = await next(document, position, context, token);
            const items = Array.isArray(answer) ? answer : (answer?.items ?? []);
            if (!token.isCancellationRequested) {
                this.given = { uri: document.uri.toString(), items };
                if (items.length > 0) {
                    this.tell('textDocument/didShowCompletion', { item: asParams(items[0]) });
                }
            }
            return answer;
        },
    };

    /** Accepts the next word or line by the editor's own command, and tells the server how much has been taken. */
    async acceptPart(command: 'acceptNextWord' | 'acceptNextLine'): Promise<void> {
        const items = this.itemsOf(vscode.window.activeTextEditor);
        await vscode.commands.executeCommand(`editor.action.inlineSuggest.${command}`);
        const editor = vscode.window.activeTextEditor;
        for (const item of editor ? items : []) {
            const taken = item.range && textUpToCursor(editor!, item.range.start);
            if (taken && textOf(item).startsWith(taken)) {
                const params = { item: asParams(item), acceptedLength: taken.length };
                this.tell('textDocument/didPartiallyAcceptCompletion', params);
                return;
            }
        }
    }

    /** Hides what is shown, and tells the server that it was not wanted. */
    async dismiss(): Promise<void> {
        const items = this.itemsOf(vscode.window.activeTextEditor);
        await vscode.commands.executeCommand('editor.action.inlineSuggest.hide');
        for (const item of items) {
            const params = { command: 'gesso.rejected', arguments: item.command?.arguments };
            await this.client?.sendRequest('workspace/executeCommand', params);
        }
    }

    private itemsOf(editor: vscode.TextEditor | undefined): readonly vscode.InlineCompletionItem[] {
        return this.given?.uri === editor?.document.uri.toString() ? (this.given?.items ?? []) : [];
    }

    private tell(method: string, params: object): void {
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
