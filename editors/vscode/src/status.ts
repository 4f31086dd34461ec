// The status bar item: what the server is doing, and how long the last suggestion took.

import * as vscode from 'vscode';

/** What the server says in `didChangeStatus`. */
export interface ServerStatus {
    readonly state: 'stopped' | 'loading' | 'ready' | 'failed';
    readonly message: string;
    readonly model: string;
    readonly enabled: boolean;
    readonly latencyMs: number | null;
}

/** What is shown: the server's own states, and those in which there is no server to speak. */
export type State = ServerStatus['state'] | 'starting' | 'absent' | 'unstartable';

const ICONS: Record<State, string> = {
    absent: '$(cloud-download)',
    starting: '$(loading~spin)',
    loading: '$(loading~spin)',
    ready: '$(sparkle)',
    stopped: '$(debug-disconnect)',
    failed: '$(error)',
    unstartable: '$(error)',
};

const WORDS: Record<State, string> = {
    absent: 'The server is not installed.',
    starting: 'The server is starting.',
    loading: 'The model is loading.',
    ready: 'Ready.',
    stopped: 'The server has stopped.',
    failed: 'The model could not be started.',
    unstartable: 'The server could not be started; the log says why.',
};

export class StatusBar implements vscode.Disposable {
    private readonly item = vscode.window.createStatusBarItem('gesso.status', vscode.StatusBarAlignment.Right, 100);
    private readonly listeners: vscode.Disposable[];
    private state: State = 'stopped';
    private server: ServerStatus | undefined;

    constructor() {
        this.item.name = 'Gesso';
        this.item.command = 'gesso.menu';
        this.listeners = [
            vscode.window.onDidChangeActiveTextEditor(() => this.draw()),
            vscode.workspace.onDidChangeConfiguration((change) => change.affectsConfiguration('gesso') && this.draw()),
        ];
        this.draw();
        this.item.show();
    }

    /** Without the server's own words, for the states in which it cannot speak. */
    show(state: State): void {
        this.state = state;
        this.server = undefined;
        this.draw();
    }

    showServer(status: ServerStatus): void {
        this.state = status.state;
        this.server = status;
        this.draw();
    }

    /** One sentence or two about the present state. */
    get sentence(): string {
        return whyOff() ?? (this.server?.message || WORDS[this.state]);
    }

    dispose(): void {
        this.listeners.forEach((one) => one.dispose());
        this.item.dispose();
    }

    private draw(): void {
        const off = whyOff() !== undefined;
        const failed = ['failed', 'unstartable'].includes(this.state) && !off;
        const latency = this.state === 'ready' && !off ? this.server?.latencyMs : undefined;
        const took = typeof latency === 'number' ? ` ${latency} ms` : '';
        this.item.text = `${off ? '$(circle-slash)' : ICONS[this.state]} Gesso${took}`;
        this.item.accessibilityInformation = { label: `Gesso. ${this.sentence}${took && ` Last suggestion:${took}.`}` };
        this.item.backgroundColor = failed ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
        this.item.tooltip = this.tooltip(took);
    }

    private tooltip(took: string): vscode.MarkdownString {
        const lines = [`**Gesso** – ${this.sentence}`];
        if (this.server?.model) {
            lines.push(`Model: ${this.server.model}`);
        }
        if (took) {
            lines.push(`The last suggestion took${took}.`);
        }
        return new vscode.MarkdownString(lines.join('\n\n'));
    }
}

/** Whether suggestions are switched off by a setting where the cursor is. */
function whyOff(): string | undefined {
    if (!vscode.workspace.getConfiguration('gesso').get<boolean>('enabled', true)) {
        return 'Suggestions are switched off.';
    }
    const document = vscode.window.activeTextEditor?.document;
    return document && !isOnFor(document) ? `Suggestions are switched off for ${document.languageId}.` : undefined;
}

export function isOnFor(document: vscode.TextDocument): boolean {
    const settings = vscode.workspace.getConfiguration('gesso', document);
    const languages = settings.get<Record<string, boolean>>('languages', {});
    return languages[document.languageId] ?? languages['*'] ?? true;
}
