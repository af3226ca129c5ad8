# Completion of anygate for bash: eval "$(anygate completions bash)"
_anygate() {
    local line="${COMP_LINE:0:COMP_POINT}" words text help path
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    while ((${#words[@]} > 1)) && [[ ${words[0]} != "$1" ]]; do
        words=("${words[@]:1}")
    done
    local current="${words[${#words[@]} - 1]}" start=""
    # bash replaces only what is behind the last character that separates words for it.
    case $current in
        *[:=]*) start="${current%"${current##*[:=]}"}" ;;
    esac
    COMPREPLY=()
    while IFS=$'\t' read -r text help; do
        case $text in
            :files | :folders)
                compopt -o filenames 2> /dev/null
                local kind=-f
                [[ $text == :folders ]] && kind=-d
                while IFS= read -r path; do
                    COMPREPLY+=("$path")
                done < <(compgen "$kind" -- "${current#"$start"}")
                ;;
            *) COMPREPLY+=("${text#"$start"}") ;;
        esac
    done < <("${1/#\~/$HOME}" completions -- "${words[@]:1}" 2> /dev/null)
}
complete -F _anygate anygate
