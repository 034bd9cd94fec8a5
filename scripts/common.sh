# What the scripts here share; each sources it from the project's folder.

outcomes=() left_out=() current=

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

# Runs another script; what that one skips is skipped here.
run() {
  local kept code=0
  kept=$(mktemp)
  "$@" | tee "$kept" || code=$?
  mapfile -t -O "${#left_out[@]}" left_out < <(grep '^skipped: ' "$kept")
  rm -f "$kept"
  return "$code"
}

# On the way out: what the steps came to, one line each.
summary() {
  if [ $? = 0 ]; then end_step passed; else end_step FAILED; fi
  printf '\n== in all\n'
  printf '%s\n' "${outcomes[@]}" "${left_out[@]}"
}

# Starts the server $stentor with further flags, on a port of its own; sets server (its process) and address.
# Its log goes to the file named by $log.
start_stentor() {
  local lines line
  # The caller's own settings are none of its business.
  exec {lines}< <(unset "${!STENTOR_@}" && exec "$stentor" --listen 127.0.0.1:0 "$@" 2>&1)
  server=$! address=
  : >"$log"
  while [ -z "$address" ] && read -r -t 30 -u "$lines" line; do
    printf '%s\n' "$line" >>"$log"
    case $line in *"listening on http://"*) address=${line#*listening on http://} address=${address%%/*} ;; esac
  done
  cat <&"$lines" >>"$log" &
  exec {lines}<&-
  [ -n "$address" ] || { echo "the server did not start: $(tail -n 1 "$log")" >&2; return 1; }
}

# Ends it as an operator would; what it had to say is in $log.
stop_stentor() {
  [ -n "${server:-}" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
