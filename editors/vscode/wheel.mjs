// Builds the wheel of Gesso into wheel/. The .vsix includes it, so that the extension installs the matching version.
// Uses the interpreter $PYTHON, or python3.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';

const python = process.env.PYTHON || 'python3';
const args = ['-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', 'wheel', '../..'];
rmSync('wheel', { recursive: true, force: true });
execFileSync(python, args, { stdio: 'inherit' });
