# shellcheck shell=bash
# What scripts/demo is made of: printing, checking, servers, cleaning up. Sourced.
#
# Uses of the caller: name (of the lab), files (a directory of its own), keep, HTTP_PORT.
# shellcheck disable=SC2154

readonly WAIT=10 # seconds for any one condition
readonly -a SSH_OPTIONS=(-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
    -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5 -o IdentitiesOnly=yes)

bold='' green='' red='' dim='' plain=''
if [[ -t 1 ]]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
fi
steps=0
background=()
files=''
take_down='' # the lab is this demo's
failure_told=''

usage_error() {
    echo "demo: $*; see scripts/demo --help" >&2
    exit 2
}

die() {
    echo "demo: $*" >&2
    exit 1
}

step() {
    steps=$((steps + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$steps" "$*" "$plain"
}

tell() { printf '   %s\n' "$*"; }
show() { printf '   %s$ %s%s\n' "$dim" "$*" "$plain"; }
good() { printf '   %s✓ %s%s\n' "$green" "$*" "$plain"; }
indent() { sed 's/^/     /'; }

bad() {
    failure_told=1
    printf '   %s✗ %s%s\n' "$red" "$*" "$plain"
    exit 1
}

# Prints a command, then what it prints.
run() {
    local shown=("$@")
    if [[ ${shown[0]} == lab ]]; then shown[0]="netns/lab --name $name"; fi
    show "${shown[*]}"
    "$@" | indent
}

# Runs a command whose output must be TEXT.
expect() { # TEXT COMMAND...
    local text=$1 output
    shift
    output=$("$@" 2>&1) || bad "failed: $output"
    indent <<<"$output"
    [[ $output == "$text" ]] || bad "expected: $text"
}

# Brings the lab up. It is taken down also where a signal comes while it comes up.
lab_up() {
    take_down=1
    show "netns/lab --name $name up"
    lab up >"$files/up"
    indent <"$files/up"
    if ! grep -q "^lab $name is up after " "$files/up"; then
        take_down=''
        bad "somebody else has brought up a lab '$name' just now: it stays as it is"
    fi
}

# Waits for a condition, WAIT seconds at most.
await() { # WHAT COMMAND...
    local what=$1 end=$((SECONDS + WAIT))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || bad "waited $WAIT s in vain for $what"
        # Nobody writes into it: a short wait that ends with any signal.
        read -rt 0.02 _ <>"$files/never" || true
    done
}

lab() { netns/lab --name "$name" "$@"; }

ports_of() { # HOST
    lab status --json | jq -r --arg node "$1" '.nodes[] | select(.node == $node) | .ports[0] | "\(.[0])-\(.[1])"'
}

# Whether the router's table has the set of a host.
knows_set_of() { # HOST
    lab arp -n | grep -qw -- "$(ports_of "$1")"
}

in_range() { # PORT LOW-HIGH
    (($1 >= ${2%-*} && $1 <= ${2#*-}))
}

# Where a service of a node listens: hosts can use ports of their set only.
service_port() { # NODE web|ssh
    local node=$1 service=$2 first
    case $node in
    h*)
        first=$(ports_of "$node")
        first=${first%-*}
        if [[ $service == web ]]; then echo $((first + 80)); else echo $((first + 22)); fi
        ;;
    *) if [[ $service == web ]]; then echo "$HTTP_PORT"; else echo 22; fi ;;
    esac
}

# Starts sshd and a web server in each node. Keys and configuration are made for this demo.
start_servers() { # NODE...
    local node port pam=no
    mkfifo "$files/never"
    ssh-keygen -q -t ed25519 -N '' -f "$files/host-key"
    ssh-keygen -q -t ed25519 -N '' -f "$files/user-key"
    # A locked account can log in by key only where PAM decides.
    if [[ $(getent shadow root) == root:!* ]]; then pam=yes; fi
    mkdir -p /run/sshd
    for node in "$@"; do
        mkdir "$files/www-$node"
        echo "hello from $node" >"$files/www-$node/index.html"
        port=$(service_port "$node" ssh)
        cat >"$files/sshd-$node" <<END
Port $port
ListenAddress 0.0.0.0
HostKey $files/host-key
AuthorizedKeysFile $files/user-key.pub
PidFile $files/sshd-$node.pid
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM $pam
UseDNS no
PrintMotd no
END
        lab exec "$node" /usr/sbin/sshd -f "$files/sshd-$node" -E "$files/sshd-$node.log"
        lab exec "$node" busybox httpd -p "$(service_port "$node" web)" -h "$files/www-$node"
        await "sshd of $node" listens "$node" "$port"
        await "the web server of $node" listens "$node" "$(service_port "$node" web)"
    done
}

listens() { # NODE PORT
    [[ -n $(lab exec "$1" ss -Htln "( sport = :$2 )") ]]
}

ssh_from() { # NODE ADDRESS PORT COMMAND
    lab exec "$1" ssh "${SSH_OPTIONS[@]}" -i "$files/user-key" -p "$3" "root@$2" "$4"
}

# PE-ARP messages about one port, as capture filters (docs/protocol.md, section 3): protocol, operation, flag "port
# valid" of the target and of the sender.
readonly RESOLVE='arp[2:2] = 0x88b5 and arp[6:2] = 1 and arp[33] & 1 != 0 and ether broadcast'
readonly REPLY='arp[2:2] = 0x88b5 and arp[6:2] = 2 and arp[19] & 1 != 0'

# Shows the question and the answer by which a freshly started router finds the owner of a port.
capture_resolution() { # PORT
    local port=$1 pid
    lab exec lan tcpdump -U -eni lan -w "$files/arp.pcap" arp 2>"$files/tcpdump" &
    pid=$!
    background+=("$pid")
    await "tcpdump" grep -q listening "$files/tcpdump"
    # A router with an empty table has to ask.
    lab restart router >/dev/null
    lab exec inet curl -sS -m 5 "http://$SHARED:$port/" >/dev/null
    await "the answer" captured "$REPLY"
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    background=()
    tell "RESOLVE by the router, to all:"
    message "$RESOLVE"
    tell "REPLY by the owner, to the router:"
    message "$REPLY"
    tell "Offset 2: protocol 0x88b5; 6: operation; 8: sender's MAC; 0xe and 0x1c: addresses, each with protocol,"
    tell "flags and port; 0x26: one record, a=0 k=4 PSID, that is all 4096 ports of the owner."
}

captured() { # FILTER
    tcpdump -nr "$files/arp.pcap" "$1" 2>/dev/null | grep -q .
}

message() { # FILTER
    tcpdump -xnr "$files/arp.pcap" -c 1 "$1" 2>/dev/null | sed -n 's/^\t/  /p' | indent
}

# Ends what the demo started, whatever happened. Nothing interrupts it: not a second Ctrl-C, nor a closed pipe.
clean_up() {
    local status=$?
    trap - EXIT
    trap '' HUP INT TERM PIPE
    if ((status > 0 && status < 128)) && [[ -z $failure_told ]]; then
        printf '   %s✗ a command failed%s\n' "$red" "$plain" || true
    fi
    if ((${#background[@]} > 0)); then kill "${background[@]}" 2>/dev/null || true; fi
    if [[ -n $keep && $status -eq 0 ]]; then return; fi
    # Takes every process in the lab's namespaces with it, servers included.
    if [[ -n $take_down ]] && ! netns/lab --name "$name" down >/dev/null; then
        echo "demo: cannot take the lab down: try 'netns/lab --name $name down'" >&2 || true
        if ((status == 0)); then status=1; fi
    fi
    if [[ -n $files ]]; then rm -rf "$files"; fi
    exit "$status"
}
