package pages

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	optional = regexp.MustCompile(`\[[^\]]*\]`)
	choice   = regexp.MustCompile(`^[a-z0-9-]+(\|[a-z0-9-]+)*$`)
	variable = regexp.MustCompile(`^[A-Z][A-Z0-9_.-]*$|^\.\.\.$|^…$`)
)

// Fits says what is wrong with a call: usage is the line of words and flags behind the command's name in its help, such as
// "FILE --key FILE [flags]" or "fast|slow [flags]", with " | " between whole alternatives. NAMES in capitals and ... stand for anything.
func Fits(flags *flag.FlagSet, usage string, words []string) error {
	given := map[string]bool{}
	var rest []string
	loose := false
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "..." || w == "…":
			loose = true
			continue
		case len(w) < 2 || w[0] != '-':
			rest = append(rest, w)
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if name == "help" || name == "h" {
			return nil
		}
		f := flags.Lookup(name)
		if f == nil {
			return fmt.Errorf("there is no flag --%s", name)
		}
		given[name] = true
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			continue
		}
		if !has {
			if i++; i >= len(words) {
				return fmt.Errorf("--%s lacks its value", name)
			}
			value = words[i]
		}
		if !variable.MatchString(value) {
			if err := f.Value.Set(value); err != nil {
				return fmt.Errorf("--%s %s: %w", name, value, err)
			}
		}
	}
	var err error
	for _, one := range strings.Split(usage, " | ") {
		if err = fits(one, given, rest, loose); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w (usage: %s)", err, usage)
}

func fits(usage string, given map[string]bool, rest []string, loose bool) error {
	more := slices.ContainsFunc(optional.FindAllString(usage, -1), func(part string) bool { return part != "[flags]" && !strings.HasPrefix(part, "[-") })
	need := strings.Fields(optional.ReplaceAllString(usage, ""))
	n := 0
	for i := 0; i < len(need); i++ {
		name, isFlag := strings.CutPrefix(need[i], "--")
		if isFlag {
			if !given[name] && !loose {
				return fmt.Errorf("--%s is missing", name)
			}
			if i+1 < len(need) && variable.MatchString(need[i+1]) {
				i++
			}
			continue
		}
		if n >= len(rest) {
			if loose {
				return nil
			}
			return fmt.Errorf("%s is missing", need[i])
		}
		if choices := strings.Split(need[i], "|"); choice.MatchString(need[i]) && !variable.MatchString(rest[n]) && need[i] != rest[n] && !slices.Contains(choices, rest[n]) {
			return fmt.Errorf("%q is none of %s", rest[n], need[i])
		}
		n++
	}
	if n < len(rest) && !more {
		return fmt.Errorf("%q is one word too many", rest[n])
	}
	return nil
}
