// Builds the wheel of Gesso from the repository's root into wheel/, for the .vsix to carry: what the extension installs
// is then the version it was made for. Python is $PYTHON, or python3.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';

const python = process.env.PYTHON || 'python3';
const args = ['-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', 'wheel', '../..'];
rmSync('wheel', { recursive: true, force: true });
execFileSync(python, args, { stdio: 'inherit' });
