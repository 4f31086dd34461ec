// The status bar item: the server's state and the latency of the last suggestion.

import * as vscode from 'vscode';

/** The parameters of the server's notification `didChangeStatus`. */
export interface ServerStatus {
    readonly state: 'stopped' | 'loading' | 'ready' | 'failed';
    readonly message: string;
    readonly model: string;
    readonly enabled: boolean;
    readonly latencyMs: number | null;
}

/** The states that the server reports, and those in which no server is running. */
export type State = ServerStatus['state'] | 'starting' | 'notInstalled' | 'startFailed';

const ICONS: Record<State, string> = {
    notInstalled: '$(cloud-download)',
    starting: '$(loading~spin)',
    loading: '$(loading~spin)',
    ready: '$(sparkle)',
    stopped: '$(debug-disconnect)',
    failed: '$(error)',
    startFailed: '$(error)',
};

const DESCRIPTIONS: Record<State, string> = {
    notInstalled: 'The server is not installed.',
    starting: 'The server is starting.',
    loading: 'The model is loading.',
    ready: 'Ready.',
    stopped: 'The server has stopped.',
    failed: 'The model could not be started.',
    startFailed: 'The server could not be started; the log says why.',
};

export class StatusBar implements vscode.Disposable {
    private readonly item = vscode.window.createStatusBarItem('gesso.status', vscode.StatusBarAlignment.Right, 100);
    private readonly subscriptions: vscode.Disposable[];
    private state: State = 'stopped';
    private server: ServerStatus | undefined;

    constructor() {
        this.item.name = 'Gesso';
        this.item.command = 'gesso.menu';
        this.subscriptions = [
            vscode.window.onDidChangeActiveTextEditor(() => this.draw()),
            vscode.workspace.onDidChangeConfiguration((change) => change.affectsConfiguration('gesso') && this.draw()),
        ];
        this.draw();
        this.item.show();
    }

    /** Shows a state without a message from the server. */
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

    /** The current state in one or two sentences. */
    get description(): string {
        return whyDisabled() ?? (this.server?.message || DESCRIPTIONS[this.state]);
    }

    dispose(): void {
        this.subscriptions.forEach((one) => one.dispose());
        this.item.dispose();
    }

    private draw(): void {
        const disabled = whyDisabled() !== undefined;
        const failed = ['failed', 'startFailed'].includes(this.state) && !disabled;
        const latencyMs = this.state === 'ready' && !disabled ? this.server?.latencyMs : undefined;
        const latency = typeof latencyMs === 'number' ? ` ${latencyMs} ms` : '';
        const label = `Gesso. ${this.description}${latency && ` Last suggestion:${latency}.`}`;
        this.item.text = `${disabled ? '$(circle-slash)' : ICONS[this.state]} Gesso${latency}`;
        this.item.accessibilityInformation = { label };
        this.item.backgroundColor = failed ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
        this.item.tooltip = this.tooltip(latency);
    }

    private tooltip(latency: string): vscode.MarkdownString {
        const lines = [`**Gesso** – ${this.description}`];
        if (this.server?.model) {
            lines.push(`Model: ${this.server.model}`);
        }
        if (latency) {
            lines.push(`Last suggestion:${latency}`);
        }
        return new vscode.MarkdownString(lines.join('\n\n'));
    }
}

/** A sentence if a setting switches suggestions off for the active editor. */
function whyDisabled(): string | undefined {
    if (!vscode.workspace.getConfiguration('gesso').get<boolean>('enabled', true)) {
        return 'Suggestions are switched off.';
    }
    const document = vscode.window.activeTextEditor?.document;
    const isOff = document !== undefined && !isLanguageEnabled(document);
    return isOff ? `Suggestions are switched off for ${document.languageId}.` : undefined;
}

/** Whether suggestions are enabled for the document's language. */
export function isLanguageEnabled(document: vscode.TextDocument): boolean {
    const settings = vscode.workspace.getConfiguration('gesso', document);
    const languages = settings.get<Record<string, boolean>>('languages', {});
    return languages[document.languageId] ?? languages['*'] ?? true;
}
