package postgres

import (
	"fmt"
	"regexp"
	"strconv"
)

// Same says in one sentence that database now is what was was. ReadSame reads it back: what a restore's step printed is all that a
// drill sees of it.
func Same(now, was string, tables int, rows int64) string {
	return fmt.Sprintf("%s is what %s was: %d tables, %d rows, 0 differences.", now, was, tables, rows)
}

var sameForm = regexp.MustCompile(`^.* is what (.*) was: (\d+) tables, (\d+) rows, 0 differences\.$`)

// ReadSame reads the sentence of Same; ok is false for any other.
func ReadSame(line string) (was string, tables int, rows int64, ok bool) {
	m := sameForm.FindStringSubmatch(line)
	if m == nil {
		return "", 0, 0, false
	}
	tables, err1 := strconv.Atoi(m[2])
	rows, err2 := strconv.ParseInt(m[3], 10, 64)
	return m[1], tables, rows, err1 == nil && err2 == nil
}
