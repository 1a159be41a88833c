# Completion of pando for bash: source <(pando completions bash)
#
# Readline splits words at the characters of COMP_WORDBREAKS, `@` and `:` among them, and pando's
# addresses contain both. So the words are put together again from the line, and what readline
# took off the front of a word is taken off the answers.
_pando_complete() {
    local IFS=$'\v' rest=${COMP_LINE:0:COMP_POINT} words=() word bare last index
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        bare=${rest#"${rest%%[![:space:]]*}"}
        # What is behind the cursor does not count.
        ((index < COMP_CWORD)) || word=$bare
        last=$((${#words[@]} - 1))
        if ((last >= 0)) && [[ $bare == "$rest" && ($word == [@:=]* || ${words[last]} == *[@:=]) ]]; then
            words[last]+=$word
        else
            words+=("$word")
        fi
        rest=${bare#"$word"}
    done
    last=$((${#words[@]} - 1))
    word=${words[last]}
    # shellcheck disable=SC2207
    COMPREPLY=($(VARIABLE=bash _CLAP_IFS=$IFS _CLAP_COMPLETE_INDEX=$last \
        _CLAP_COMPLETE_COMP_TYPE=$COMP_TYPE _CLAP_COMPLETE_SPACE=false \
        command pando -- "${words[@]}" 2>/dev/null)) || return 0
    # Readline replaces what it takes for the word, its second argument; the rest stays on the line.
    local front=${word%"$2"}
    for index in "${!COMPREPLY[@]}"; do
        COMPREPLY[index]=${COMPREPLY[index]#"$front"}
    done
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/:@] ]]; then
        compopt -o nospace
    fi
}
if ((BASH_VERSINFO[0] > 4 || BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4)); then
    complete -o bashdefault -o default -o nosort -F _pando_complete pando
else
    complete -o bashdefault -o default -F _pando_complete pando
fi
