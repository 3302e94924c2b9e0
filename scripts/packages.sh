# shellcheck shell=bash
# Debian packages that scripts need. Sourced; offers `need_packages PACKAGE...` and `need_compiler`.

# Installs those of the packages that are missing. Says nothing and asks nobody where there are none.
need_packages() {
    local package missing=()
    if ! type -P dpkg-query apt-get >/dev/null; then
        echo "this is no Debian: install what these Debian packages have, or the next steps will fail: $*" >&2
        return 0
    fi
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ?i* ]] || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    if ((EUID != 0)); then
        echo "packages are missing, and installing them needs root: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}"
    install_packages "${missing[@]}"
}

# Installs a linker, and a compiler for the C part of a dependency, where there is none.
need_compiler() {
    type -P cc >/dev/null || need_packages gcc libc6-dev
}

# A subshell, so that its trap is its own.
install_packages() (
    set -euo pipefail
    policy=/usr/sbin/policy-rc.d
    own_policy=
    log=$(mktemp)
    trap 'rm -f "$log" ${own_policy:+"$policy"}' EXIT
    # A signal ends the script, and with that comes the trap.
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Only programs are wanted: no sshd or the like shall start to serve on this machine.
    if [[ ! -e $policy && ! -L $policy ]]; then
        own_policy=1
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    options=(-qq -y -o DPkg::Lock::Timeout=300)
    if ! { apt-get "${options[@]}" update && apt-get "${options[@]}" --no-install-recommends install "$@"; } \
        </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        echo "cannot install $*: the reason stands above" >&2
        exit 1
    fi
)
