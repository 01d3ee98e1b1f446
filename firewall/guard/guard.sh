#!/bin/sh
# Undoes a change of this machine's firewall unless somebody confirms it.
#
#   What is guarded:   @WHAT@
#   Undo it now:       sh @SCRIPT@ restore
#   Is it running:     cat @DIR@/running     (process, when it started)
#   What it has done:  cat @DIR@/log
#
# It is started by "watch" before the change is made, in a session of its own,
# and needs nothing but this directory and the programs of the system. It rolls
# back when the time is up, and at once on SIGTERM (kill PID). SIGKILL ends it
# without: then run "restore" by hand.
#
# Files beside it: file.N, table.N, nft.N and sysctl.N are what was there
# before, X.absent says that nothing was. Whoever makes the file "decision"
# first (a hard link, which is atomic) has decided: confirmed or rolled-back.

set -u
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C LANGUAGE=C
export PATH LC_ALL LANGUAGE

dir=@DIR@
window=@WINDOW@ # hundredths of a second
tries=@TRIES@   # rounds, a second apart, before a step that fails is given up
settle=@SETTLE@ # seconds to look again for a command that comes late
rebooted=       # not empty: the kernel has begun anew, so only files are put back

say() {
    printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$dir/log"
}

bounded() {
    timeout -k 2 15 "$@"
}

# uptime sets now to hundredths of a second since the machine started. The time
# of day may be set while we wait; this does not go back.
uptime() {
    read -r now _ </proc/uptime || now=
    now=${now%.*}${now#*.}
}

# --- what was there before -------------------------------------------------

same_file() { # A B: the same content, mode and owner
    [ -f "$2" ] && [ ! -L "$2" ] && cmp -s -- "$1" "$2" &&
        [ "$(stat -c '%a %u %g' -- "$1")" = "$(stat -c '%a %u %g' -- "$2")" ]
}

file() { # N PATH
    if [ -e "$dir/file.$1.absent" ]; then
        rm -f -- "$2"
        [ ! -e "$2" ]
        return
    fi
    [ -e "$dir/file.$1" ] && [ ! -d "$2" ] || return 1
    same_file "$dir/file.$1" "$2" && return 0
    mkdir -p -- "${2%/*}/" &&
        cp -a -- "$dir/file.$1" "$2.hardshell-guard" &&
        mv -f -- "$2.hardshell-guard" "$2" &&
        same_file "$dir/file.$1" "$2"
}

sysctl_value() { # N PATH
    [ -z "$rebooted" ] || return 0
    [ -e "$dir/sysctl.$1" ] || return 1
    [ -e "$2" ] || return 0 # an interface that has gone
    value=$(cat -- "$dir/sysctl.$1")
    [ "$(cat -- "$2")" = "$value" ] && return 0
    printf '%s\n' "$value" >"$2" && [ "$(cat -- "$2")" = "$value" ]
}

# iptables-save writes counters and dates, which are not part of the rules.
saved_table() { # PROGRAM TABLE
    bounded "$1-save" >"$dir/now.all.$$" || return 1
    if grep -q "is incompatible, use 'nft' tool" "$dir/now.all.$$"; then return 1; fi
    sed -n -e "/^\*$2\$/,/^COMMIT\$/s/^\(:.*\) \[[0-9]*:[0-9]*\]\$/\1/p;/^\*$2\$/,/^COMMIT\$/{/^-A/p;}" "$dir/now.all.$$"
}

# merge prints what iptables-restore --noflush needs to make the second listing
# the first, in one transaction that leaves other chains alone; it exits with 3
# if they are the same.
merge() { # TABLE "CHAINS" BEFORE NOW; no chains means all
    awk -v table="$1" -v chains="$2" '
    BEGIN { all = split(chains, list, " ") == 0; for (i in list) own[list[i]] = 1 }

    # refers reports whether a rule jumps to one of our chains. What is in quotes is a comment.
    function refers(rule) {
        gsub(/"([^"\\]|\\.)*"/, "", rule)
        if (!match(rule, /(^| )-[jg] [^ ]+/)) return 0
        rule = substr(rule, RSTART, RLENGTH)
        sub(/.* /, "", rule)
        return rule in own
    }

    /^:/ {
        chain = substr($1, 2)
        policy[f, chain] = $2
        name[f, ++chainsOf[f]] = chain
        next
    }
    /^-A / { rule[f, $2, ++rules[f, $2]] = substr($0, length($2) + 5) }

    # ours is what a listing says of a chain, as far as it is ours. A chain of
    # the kernel that is not listed accepts everything.
    function ours(f, c,    j, text) {
        if (all || c in own) text = ((f, c) in policy) ? policy[f, c] : "ACCEPT"
        for (j = 1; j <= rules[f, c]; j++)
            if (all || c in own) text = text "\n" rule[f, c, j]
            else if (refers(rule[f, c, j])) text = text "\n" j " " rule[f, c, j]
        return text
    }

    function differs(    f, i) {
        for (f = 1; f <= 2; f++)
            for (i = 1; i <= chainsOf[f]; i++)
                if (ours(1, name[f, i]) != ours(2, name[f, i])) return 1
        return 0
    }

    END {
        if (!differs()) exit 3
        print "*" table
        if (all) {
            for (i = 1; i <= chainsOf[2]; i++) base[name[2, i]] = policy[2, name[2, i]] != "-"
            for (i = 1; i <= chainsOf[1]; i++) base[name[1, i]] = policy[1, name[1, i]] != "-"
            for (c in base) if (base[c]) print ":" c " " (((1, c) in policy) ? policy[1, c] : "ACCEPT") " [0:0]"
        } else {
            for (i = 1; i <= chainsOf[2]; i++) {
                c = name[2, i]
                for (j = 1; j <= rules[2, c]; j++)
                    if (c in own) continue
                    else if (refers(rule[2, c, j])) print "-D " c " " rule[2, c, j]
                    else left[c]++
            }
        }
        for (i = 1; i <= chainsOf[2]; i++) if (all || name[2, i] in own) print "-F " name[2, i]
        for (i = 1; i <= chainsOf[2]; i++) {
            c = name[2, i]
            if ((all || c in own) && policy[2, c] == "-" && !((1, c) in policy)) print "-X " c
        }
        for (i = 1; i <= chainsOf[1]; i++) {
            c = name[1, i]
            if ((all || c in own) && policy[1, c] == "-") print ":" c " - [0:0]"
        }
        for (i = 1; i <= chainsOf[1]; i++) {
            c = name[1, i]
            for (j = 1; j <= rules[1, c]; j++)
                if (all || c in own) print "-A " c " " rule[1, c, j]
                else if (refers(rule[1, c, j]) && ((2, c) in policy)) {
                    at = j > left[c] + 1 ? left[c] + 1 : j
                    print "-I " c " " at " " rule[1, c, j]
                    left[c]++
                }
        }
        print "COMMIT"
    }' f=1 "$3" f=2 "$4"
}

table() { # N PROGRAM TABLE NFT-TABLE "CHAINS"; NFT-TABLE is empty for the legacy flavour
    [ -z "$rebooted" ] || return 0
    [ -e "$dir/table.$1" ] || return 1
    saved_table "$2" "$3" >"$dir/now.$1.$$" || return 1
    merge "$3" "$5" "$dir/table.$1" "$dir/now.$1.$$" >"$dir/apply.$1.$$"
    case $? in
    0)
        bounded "$2-restore" --noflush -w 5 <"$dir/apply.$1.$$" || return 1
        saved_table "$2" "$3" >"$dir/now.$1.$$" || return 1
        merge "$3" "$5" "$dir/table.$1" "$dir/now.$1.$$" >/dev/null
        [ $? = 3 ] || return 1
        ;;
    3) ;;
    *) return 1 ;;
    esac
    if [ -n "$4" ] && [ -z "$5" ]; then hooks "$1" "$4"; fi
}

# hooks removes the empty chains that iptables makes in a table of nftables when
# it first looks at them. They accept everything.
hooks() { # N NFT-TABLE
    command -v nft >/dev/null || return 0
    if [ -e "$dir/table.$1.absent" ]; then
        [ -z "$(bounded nft list table $2 2>/dev/null)" ] || bounded nft delete table $2
        return
    fi
    [ -e "$dir/table.$1.hooks" ] || return 0
    for chain in $(bounded nft list table $2 2>/dev/null | sed -n 's/^	chain \(.*\) {$/\1/p'); do
        grep -qx -- "$chain" "$dir/table.$1.hooks" || bounded nft delete chain $2 "$chain" || return 1
    done
}

nft_table() { # N "FAMILY NAME"
    [ -z "$rebooted" ] || return 0
    bounded nft -s list tables >"$dir/now.all.$$" || return 1
    : >"$dir/now.$1.$$"
    if grep -qxF -- "table $2" "$dir/now.all.$$"; then
        bounded nft -s list table $2 >"$dir/now.$1.$$" || return 1
    fi
    if [ -e "$dir/nft.$1.absent" ]; then
        [ -s "$dir/now.$1.$$" ] || return 0
        bounded nft delete table $2
        return
    fi
    [ -e "$dir/nft.$1" ] || return 1
    cmp -s -- "$dir/nft.$1" "$dir/now.$1.$$" && return 0
    {
        echo "add table $2"
        echo "delete table $2"
        cat -- "$dir/nft.$1"
    } >"$dir/apply.$1.$$" && bounded nft -f "$dir/apply.$1.$$"
}

# --- undoing ---------------------------------------------------------------

step() { # NAME COMMAND…
    name=$1
    shift
    "$@" 2>>"$dir/stderr.$$" || printf '%s\n' "$name" >>"$dir/failed.$$"
}

# All steps are taken, whatever becomes of one; each does nothing if what it
# puts back is there. Rules come first: they decide who can get in.
steps() {
    : >"$dir/failed.$$"
    : >"$dir/stderr.$$"
@STEPS@
    # Said once, not in every round.
    if [ -s "$dir/failed.$$" ] && ! cmp -s -- "$dir/failed.$$" "$dir/failed"; then
        say "not put back: $(tr '\n' ';' <"$dir/failed.$$") $(cat -- "$dir/stderr.$$")"
    fi
    mv -f -- "$dir/failed.$$" "$dir/failed"
    [ ! -s "$dir/failed" ]
}

restore() {
    say "restoring what was before"
    round=0
    until steps; do
        round=$((round + 1))
        if [ "$round" -ge "$tries" ]; then
            finish incomplete
            return 1
        fi
        sleep 1
    done
    # A command of the change that waited for a lock may still come.
    round=0
    while [ "$round" -lt "$settle" ]; do
        sleep 1
        round=$((round + 1))
        steps
    done
    if [ -s "$dir/failed" ]; then
        finish incomplete
        return 1
    fi
    finish restored
}

finish() {
    say "$1"
    printf '%s\n' "$1" >"$dir/outcome.$$" && mv -f -- "$dir/outcome.$$" "$dir/outcome"
    # What is not restored stays the current one, and keeps others from starting.
    if [ "$1" = restored ] && [ "$(readlink -- "$dir/../current")" = "${dir##*/}" ]; then
        rm -f -- "$dir/../current"
    fi
}

# decide reports whether we may undo the change. A disk that takes no more
# files must not keep us from it.
decide() {
    printf 'rolled-back\n' >"$dir/decision.$$"
    ln -- "$dir/decision.$$" "$dir/decision" 2>/dev/null && return 0
    ! grep -q '^confirmed' "$dir/decision" 2>/dev/null
}

running() {
    start=$(sed 's/.*) //' "/proc/$$/stat" | cut -d ' ' -f 20)
    read -r boot </proc/sys/kernel/random/boot_id
    printf '%s %s %s %s\n' "$$" "$start" "${1-0}" "$boot" >"$dir/running.$$" && mv -f -- "$dir/running.$$" "$dir/running"
}

watch() {
    trap '' HUP INT QUIT PIPE
    early=
    trap 'early=1' TERM
    for tool in awk cat cmp cp cut date grep ln mkdir mv readlink rm sed sleep stat timeout tr@TOOLS@; do
        command -v "$tool" >/dev/null || {
            say "missing: $tool"
            exit 1
        }
    done
    # The last to be killed when memory runs out.
    { echo -1000 >/proc/self/oom_score_adj; } 2>/dev/null
    uptime
    deadline=$((now + window))
    running "$deadline" || exit 1
    say "watching"
    ticks=0
    while [ -d "$dir" ] && [ ! -e "$dir/decision" ] && [ ! -e "$dir/rollback" ] && [ -z "$early" ]; do
        uptime
        [ "${now:-0}" -ge "$deadline" ] && break
        # Should the clock not be readable, the rounds are counted.
        ticks=$((ticks + 20))
        [ "$ticks" -ge "$window" ] && break
        sleep 0.2 2>/dev/null || sleep 1
    done
    [ -d "$dir" ] || exit 0 # cleaned up after it was confirmed
    decide || exit 0
    trap '' TERM
    restore
}

case ${1-} in
watch) watch ;;
restore | restore-files)
    [ "$1" = restore ] || rebooted=yes
    trap '' HUP INT QUIT PIPE TERM
    running || exit 1
    decide || {
        say "not restored: the change has been confirmed"
        exit 1
    }
    restore
    ;;
*)
    echo "usage: sh $0 watch|restore|restore-files" >&2
    exit 2
    ;;
esac
