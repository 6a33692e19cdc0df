package pages

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

func TestReadFindsWhatPeopleType(t *testing.T) {
	page := "See `run` and `prog` or `prog watch\n--quiet`, also `sudo prog watch \\| prog list`.\n\n" +
		"```sh\n$ A=b bin/prog put x >out   # prog not this\nprog put 'a b' \\\n  --key K && ssh host prog watch\ndocker compose run --rm prog list -- x\n# prog never\n```\n\n" +
		"```yaml\nprog: put\n```\n\nand `other prog`, `prog run fast|slow`.\n"
	var got []string
	for _, c := range read("p.md", page, "prog") {
		got = append(got, fmt.Sprintf("%d %v %q", c.Line, c.Fenced, c.Words))
	}
	want := []string{`1 false ["watch" "--quiet"]`, `2 false ["watch"]`, `2 false ["list"]`, `5 true ["put" "x"]`, `7 true ["put" "a b" "--key" "K"]`, `7 true ["watch"]`,
		`8 true ["list" "--" "x"]`, `16 false ["run" "fast|slow"]`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct{ usage, words, want string }{
		{"fast|slow [flags]", "fast --n 3", ""},
		{"fast|slow [flags]", "TIER", ""},
		{"fast|slow [flags]", "fast|slow", ""},
		{"fast|slow [flags]", "", "fast|slow is missing"},
		{"fast|slow [flags]", "hourly", "is none of"},
		{"fast|slow [flags]", "fast vault", "one word too many"},
		{"fast|slow [flags]", "fast --n three", "--n three"},
		{"fast|slow [flags]", "fast --n N", ""},
		{"fast|slow [flags]", "fast --n", "lacks its value"},
		{"fast|slow [flags]", "fast --no-such", "no flag --no-such"},
		{"fast|slow [flags]", "--help", ""},
		{"--tags TAGS [flags]", "--tags a,b --yes", ""},
		{"--tags TAGS [flags]", "--yes", "--tags is missing"},
		{"--tags TAGS [flags]", "vault", "--tags is missing"},
		{"--tags TAGS [flags]", "...", ""},
		{"FILE --key FILE", "a --key b", ""},
		{"FILE --key FILE", "a", "--key is missing"},
		{"NAME [FILE] [flags]", "a b c", ""},
		{"--yes --tags TAGS [flags] | --n N [flags]", "--n 4", ""},
		{"--yes --tags TAGS [flags] | --n N [flags]", "--yes", "is missing"},
		{`"QUESTION" [flags]`, "why", ""},
	} {
		fs := flag.NewFlagSet("x", flag.ContinueOnError)
		fs.Int("n", 0, "")
		fs.Bool("yes", false, "")
		fs.String("tags", "", "")
		fs.String("key", "", "")
		err := Fits(fs, c.usage, strings.Fields(c.words))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %q: %v, want %q", c.usage, c.words, err, c.want)
		}
	}
}
