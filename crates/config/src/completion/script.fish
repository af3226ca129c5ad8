# Completion of anygate for fish: anygate completions fish > ~/.config/fish/completions/anygate.fish
function __anygate_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l start (string match -r -- '^--[^=]*=' "$current")
    set -l path (string replace -r -- '^--[^=]*=' '' "$current")
    for line in ($program completions -- $words "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$path" | string replace -r -- '^' "$start"
            case :folders
                __fish_complete_directories "$path" | string replace -r -- '^' "$start"
            case '*'
                echo $line
        end
    end
end
complete -c anygate -f -a '(__anygate_complete)'
