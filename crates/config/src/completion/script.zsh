#compdef anygate
# Completion of anygate for zsh: a file _anygate in a folder of $fpath, or eval "$(anygate completions zsh)" after compinit.
_anygate() {
    local -a candidates
    local text help paths=""
    local program=${(Q)words[1]}
    ${program/#\~/$HOME} completions -- "${(@Q)words[2,CURRENT - 1]}" "${(Q)PREFIX}" 2> /dev/null |
        while IFS=$'\t' read -r text help; do
            case $text in
                (:files | :folders) paths=$text ;;
                (*) candidates+=("${text//:/\\:}${help:+:$help}") ;;
            esac
        done
    (($#candidates)) && _describe anygate candidates
    [[ $PREFIX == --*=* ]] && compset -P '*='
    case $paths in
        (:files) _files ;;
        (:folders) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _anygate ]]; then
    _anygate "$@"
else
    compdef _anygate anygate
fi
