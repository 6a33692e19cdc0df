package main

import (
	"strings"
	"testing"
)

func TestWhatIsNotUnderstoodIsSaidBeforeAnythingStarts(t *testing.T) {
	t.Setenv("HOMELAB_LAB_DIR", t.TempDir())
	for _, c := range []struct {
		args string
		slot string
		code int
		want string
	}{
		{"", "", 2, "there is no command"},
		{"--help", "", 0, "zero [--again]"},
		{"pu", "", 2, `no command "pu"`},
		{"up --machines A_B", "", 2, `start machine "A_B": a name has at most 13 letters`},
		{"up --machines alpha,alpha", "", 2, "named twice"},
		{"up gamma", "", 2, "write --machines gamma"},
		{"prepare alpha", "", 2, "takes nothing"},
		{"down alpha", "", 2, "takes nothing"},
		{"status", "99", 2, "a number from 1 to 60"},
		{"status", "one", 2, "HOMELAB_LAB_SLOT=one"},
		{"status", "", 1, "make lab-up"},
		{"ssh", "", 2, "which machine?"},
		{"ssh alpha", "", 1, "make lab-up"},
		{"fault", "", 2, "which kind?"},
		{"heal", "", 1, "make lab-up"},
	} {
		t.Setenv("HOMELAB_LAB_SLOT", c.slot)
		var out strings.Builder
		if code := run(strings.Fields(c.args), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("labctl %s: exit %d, want %d with %q\n%s", c.args, code, c.code, c.want, out.String())
		}
	}
}
