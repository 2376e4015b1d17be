#!/usr/bin/env bash
# Greets whoever asks: requests of the type greet.LANGUAGE, with a name as payload. Needs jq.
#
#     SHMBUS_BUS=symphony ./greeter.sh

coproc BUS { exec shmbus gateway; }

say() { jq -cn "$@" >&"${BUS[1]}"; }

say '{op: "attach", name: "greeter"}'
say '{op: "handle", pattern: "greet.*"}'

while read -r line <&"${BUS[0]}"; do
    message=$(jq '.message // empty' <<<"$line")
    [[ -n $message ]] || { jq -r '.error.message' <<<"$line" >&2; continue; }
    name=$(jq -r .payload <<<"$line")
    case $(jq -r .type <<<"$line") in
    greet.english) say --argjson m "$message" --arg t "hello $name" '{op: "reply", message: $m, payload: $t}' ;;
    greet.french) say --argjson m "$message" --arg t "bonjour $name" '{op: "reply", message: $m, payload: $t}' ;;
    *) say --argjson m "$message" '{op: "error", message: $m, name: "LookupError", text: "no such language"}' ;;
    esac
done
