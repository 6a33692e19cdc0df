package versions

import (
	"slices"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/s3"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// history makes the versions of one object, the newest first: each letter of what is a content, - a mark of deletion; each is an hour
// after the one before it, and the first is of noon.
func history(key, what string) []s3.Version {
	var out []s3.Version
	for i, c := range what {
		out = append(out, s3.Version{Key: key, ID: string(rune('0' + i)), Deleted: c == '-', ETag: string(c), Size: 1, Time: noon.Add(time.Duration(i) * time.Hour), Latest: i == len(what)-1})
	}
	slices.Reverse(out)
	return out
}

func TestWhatIsNotWhatItWasIsFound(t *testing.T) {
	at := func(hours float64) time.Time { return noon.Add(time.Duration(hours * float64(time.Hour))) }
	for _, c := range []struct {
		name, what string
		before     time.Time
		why, first string // the first candidate's content
	}{
		{"written once", "a", time.Time{}, "", ""},
		{"written over", "ab", time.Time{}, Overwritten, "a"},
		{"written over twice", "abc", time.Time{}, Overwritten, "a"},
		{"written again, the same", "aa", time.Time{}, "", ""},
		{"written over, and put back", "aba", time.Time{}, "", ""},
		{"deleted, by prune perhaps", "a-", time.Time{}, "", ""},
		{"deleted and written anew", "a-b", time.Time{}, Overwritten, "a"},
		{"it was well then and is now", "a", at(0.5), "", ""},
		{"it came later", "a", at(-0.5), "", ""},
		{"written over since", "ab", at(0.5), Overwritten, "a"},
		{"written over before that moment", "ab", at(1.5), "", ""},
		{"between two of them", "abc", at(1.5), Overwritten, "b"},
		{"deleted since", "a-", at(0.5), Deleted, "a"},
		{"deleted before", "a-", at(1.5), "", ""},
		{"deleted before, and written since", "a-b", at(1.5), "", ""},
		{"written over and deleted since", "ab-", at(0.5), Deleted, "a"},
		{"put back since", "aba", at(0.5), "", ""},
	} {
		s := Look(history("data/aa/x", c.what), c.before)
		switch {
		case c.why == "" && len(s.Losses) > 0:
			t.Errorf("%s: %+v", c.name, s.Losses)
		case c.why != "" && (len(s.Losses) != 1 || s.Losses[0].Why != c.why || s.Losses[0].Candidates[0].ETag != c.first):
			t.Errorf("%s: %+v", c.name, s.Losses)
		}
	}
}

func TestLocksAreNobodysLossAndNewSnapshotsAreNamed(t *testing.T) {
	all := slices.Concat(history("config", "a"), history("locks/l", "ab"), history("snapshots/old", "a"), history("snapshots/was", "a-"))
	later := history("snapshots/forged", "a")
	later[0].Time = noon.Add(5 * time.Hour)
	all = slices.Concat(all[:3], later, all[3:])
	s := Look(all, noon.Add(2*time.Hour))
	if s.Objects != 4 || len(s.Losses) != 0 || !slices.Equal(s.Newer, []string{"forged"}) {
		t.Errorf("%+v", s)
	}
	if s = Look(all, noon.Add(30*time.Minute)); len(s.Losses) != 1 || s.Losses[0].Key != "snapshots/was" {
		t.Errorf("%+v", s)
	}
	if s = Look(nil, time.Time{}); s.Objects != 0 || len(s.Losses) != 0 {
		t.Errorf("%+v", s)
	}
}
