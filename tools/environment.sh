# Sourced by the commands beside it, which set $root. Nothing but a checksum runs when .venv is up to date, and what is
# compiled in it is of the present sources.

# ensure_environment runtime|dev
ensure_environment() {
    mark="$(cat "$root/pyproject.toml" "$root"/respkv/*/*.py | cksum) $root"
    stamp=
    if [ -x "$root/.venv/bin/python" ] && [ -f "$root/.venv/respkv-$1.stamp" ]; then
        IFS= read -r stamp < "$root/.venv/respkv-$1.stamp" || :
    fi
    if [ "$stamp" != "$mark" ]; then
        find_python
        "$found" "$root/tools/environment.py" "$1" "$mark"
    fi
}

# Sets $found to a Python that can make the environment. A name on PATH may be a shim
# of a version that is not switched on, so each candidate is asked.
find_python() {
    bare=
    for candidate in ${RESPKV_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python3.15 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            found=$candidate
            return
        fi
        bare=$candidate
    done
    if [ -n "$bare" ]; then
        echo "respkv: $bare cannot make virtual environments; on Debian, install python3-venv." >&2
    else
        echo "respkv needs Python 3.11 or newer and found none; RESPKV_PYTHON may name one." >&2
    fi
    exit 1
}
