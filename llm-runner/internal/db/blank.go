package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// blank stands where words were that are forgotten.
const blank = "(forgotten)"

// Blank replaces words wherever they stand in text columns of a table, also as JSON writes them, and as JSON within JSON does. The caller
// owns the table. Call it with the longest words first, where some are parts of others.
func (d *DB) Blank(ctx context.Context, tx *sql.Tx, table string, columns []string, words ...string) error {
	for _, word := range words {
		for _, w := range spellings(word) {
			for _, c := range columns {
				like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(w) + "%"
				if _, err := tx.ExecContext(ctx, `UPDATE `+table+` SET `+c+` = replace(`+c+`, ?, ?) WHERE `+c+` LIKE ? ESCAPE '\'`, w, blank, like); err != nil {
					return fmt.Errorf("blank words in %s: %w", table, err)
				}
			}
		}
	}
	return nil
}

// spellings are the ways in which a text stands in JSON, and in JSON within it.
func spellings(word string) []string {
	if strings.TrimSpace(word) == "" {
		return nil
	}
	all := []string{word}
	for range 2 {
		for _, w := range slices.Clone(all) {
			plain, _ := json.Marshal(w) //nolint:errcheck // a string always can be written
			html := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(plain))
			ascii := strconv.QuoteToASCII(w)
			for _, s := range []string{string(plain), html, ascii} {
				s = s[1 : len(s)-1]
				all = append(all, s, strings.ReplaceAll(s, `'`, `\u0027`))
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	slices.SortStableFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}
