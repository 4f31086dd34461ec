# Makes .venv with Gesso in it, once per state of pyproject.toml and requirements-dev.txt. `try` and `check` source it in
# the root of the repository. Sets $python. Downloads a CUDA build of torch only if there is an NVIDIA GPU.

torch_range='torch>=2.11,<2.14'
torch_version='2.13.0'  # of the development environment, and of all CPU builds
torch_cpu_index='https://download.pytorch.org/whl/cpu'

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail 'No Python 3.11 or newer was found; install one, or set PYTHON: PYTHON=/path/to/python3 ./try'
}

pip_install() {
    local quiet=--quiet
    [ ! -t 1 ] || quiet=
    "$python" -m pip install $quiet --disable-pip-version-check --no-input "$@"
}

has_nvidia_gpu() {
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1
}

# install_torch REQUIREMENT: `torch` has no hashes in requirements-dev.txt, since its build depends on the machine.
install_torch() {
    if "$python" -c 'import torch' 2>/dev/null || [ "$(uname -s)" != Linux ] || has_nvidia_gpu; then
        pip_install "$1"
        return
    fi
    echo 'installing PyTorch for the CPU (about 200 MB, once)' >&2
    pip_install --timeout 15 --retries 0 --extra-index-url "$torch_cpu_index" "torch==$torch_version+cpu" 2>/dev/null ||
        pip_install "torch==$torch_version" ||
        pip_install "$1"
}

install_gesso() {
    install_torch "$torch_range" && pip_install --editable .
}

# What requirements-dev.txt names and nothing else. Only wheels, since building a source archive runs its code.
install_development() {
    pip_install --require-hashes --no-deps --only-binary :all: --requirement requirements-dev.txt &&
        install_torch "torch==$torch_version" &&
        pip_install --no-deps --no-build-isolation --editable .
}

# set_up [dev]
set_up() {
    local found stamp install=install_gesso
    [ "${1:-}" != dev ] || install=install_development
    if ! .venv/bin/python -c '' 2>/dev/null; then
        found=$(find_python) || exit $?
        echo "making .venv with $("$found" --version 2>&1)" >&2
        "$found" -m venv --clear .venv ||
            fail "The environment .venv could not be created; on Debian and Ubuntu install python3-venv, then run this again."
    fi
    python=$PWD/.venv/bin/python
    stamp=.venv/gesso-${1:-plain}-$(cat pyproject.toml requirements-dev.txt | cksum | tr ' ' '-')
    if [ ! -e "$stamp" ]; then
        echo 'installing Gesso and its dependencies' >&2
        "$install" ||
            fail 'Gesso could not be installed; see the lines above, check the network, and run this again.'
        touch "$stamp"
    fi
}
