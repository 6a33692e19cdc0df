package postgres

import "testing"

func TestWhatAComparisonSaysIsReadBack(t *testing.T) {
	for _, name := range []string{"gitea", "a is what b was: 1 tables", "ü"} {
		was, tables, rows, ok := ReadSame(Same(name+"_restoring", name, 12, 3456))
		if !ok || tables != 12 || rows != 3456 {
			t.Errorf("%s: %s %d %d %v", name, was, tables, rows, ok)
		}
	}
	for _, line := range []string{"", "compare database: 2 differences: a", "x is what y was: many tables, 1 rows, 0 differences."} {
		if _, _, _, ok := ReadSame(line); ok {
			t.Errorf("%q was read", line)
		}
	}
}
