package restic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Oldest is the restic that has the exit codes which everything here goes by (its changelog, 0.17.0 and 0.17.1).
const Oldest = "0.17.1"

// Suits says whether the program is there and not too old.
func (r Repo) Suits(ctx context.Context) error {
	out, err := r.Run(ctx, []string{"version", "--json"}, nil)
	var missing *Error
	if err != nil && !errors.As(err, &missing) {
		return err
	}
	var told struct {
		Version string `json:"version"`
	}
	if err != nil || json.Unmarshal(out, &told) != nil || older(told.Version, Oldest) { // before 0.16 it knew no --json there
		if told.Version == "" {
			told.Version = "of an unknown version"
		}
		return fmt.Errorf("use restic %s: %s is the oldest whose exit codes can be trusted: install the one of role restic", told.Version, Oldest)
	}
	return nil
}

// older compares two versions, number by number.
func older(version, than string) bool {
	var a, b [3]int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &a[0], &a[1], &a[2]); n < 2 {
		return true
	}
	fmt.Sscanf(than, "%d.%d.%d", &b[0], &b[1], &b[2]) //nolint:errcheck // it is a constant
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
