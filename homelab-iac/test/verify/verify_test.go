package verify

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestEveryAssertionCanBeRunAndFail(t *testing.T) {
	all, err := All()
	if err != nil || len(all) < 20 {
		t.Fatal(len(all), err)
	}
	groups := map[string]bool{"all": true, "docker": true, "services": true, "metrics": true, "nginx": true, "ollama": true, "tailnet": true, "restic": true}
	seen := map[string]bool{}
	for _, a := range all {
		if !groups[a.Group] || a.What == "" || a.Run == "" || seen[a.What] {
			t.Errorf("%+v: it needs a group of site.yml, a sentence of its own and a command", a)
		}
		seen[a.What] = true
		if out, err := exec.Command("sh", "-n", "-c", a.Run).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", a.What, err, out)
		}
	}
	if n := len(Of(all, []string{"docker"})); n == 0 || n >= len(all) {
		t.Errorf("%d of %d are for Docker", n, len(all))
	}
}

func TestWhatIsPrintedDecides(t *testing.T) {
	list := []Assertion{{What: "right", Run: "a", Want: "x"}, {What: "wrong", Run: "b", Want: "x"}, {What: "nothing", Run: "c", Want: ""}, {What: "unreachable", Run: "d", Want: ""}}
	got := Ask(t.Context(), list, func(_ context.Context, command string) (string, error) {
		switch command {
		case "a":
			return "x\n", nil
		case "b":
			return "y\n", nil
		case "c":
			return "", nil
		}
		return "", errors.New("no route to host")
	})
	var ok []string
	for _, r := range got {
		if r.OK {
			ok = append(ok, r.What)
		}
	}
	if strings.Join(ok, " ") != "right nothing" || !strings.Contains(got[3].Got, "no route") {
		t.Errorf("%+v", got)
	}
}
