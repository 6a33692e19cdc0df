package plan

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// differences are the paths at which the values differ, as deep as both sides are known and nothing is sensitive.
func differences(v *values) []Attribute {
	var out []Attribute
	differ(&out, "", v.before, v.after, v.unknown, v.beforeSensitive, v.afterSensitive)
	slices.SortStableFunc(out, func(a, b Attribute) int { return strings.Compare(a.Path, b.Path) })
	return out
}

func differ(out *[]Attribute, path string, before, after, unknown, beforeSensitive, afterSensitive any) {
	if path != "" {
		hidden := beforeSensitive == true || afterSensitive == true
		switch {
		case unknown == true:
			*out = append(*out, Attribute{path, hidden || hasTrue(beforeSensitive), true})
			return
		case hidden || before == nil && !hasTrue(unknown) || after == nil && !hasTrue(unknown):
			if !reflect.DeepEqual(before, after) || hasTrue(unknown) {
				*out = append(*out, Attribute{path, hidden || hasTrue(beforeSensitive) || hasTrue(afterSensitive), hasTrue(unknown)})
			}
			return
		}
	}
	b, bIsMap := before.(map[string]any)
	a, aIsMap := after.(map[string]any)
	u, uIsMap := unknown.(map[string]any)
	if (bIsMap || before == nil) && (aIsMap || after == nil) && (bIsMap || aIsMap || uIsMap) {
		keys := map[string]bool{}
		for _, m := range []map[string]any{b, a, u} {
			for k := range m {
				keys[k] = true
			}
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			differ(out, join(path, k), b[k], a[k], u[k], inside(beforeSensitive, k), inside(afterSensitive, k))
		}
		return
	}
	bl, bIsList := before.([]any)
	al, aIsList := after.([]any)
	ul, uIsList := unknown.([]any)
	if (bIsList || before == nil) && (aIsList || after == nil) && (bIsList || aIsList || uIsList) {
		for i := range max(len(bl), len(al), len(ul)) {
			differ(out, path+"["+strconv.Itoa(i)+"]", at(bl, i), at(al, i), at(ul, i), element(beforeSensitive, i), element(afterSensitive, i))
		}
		return
	}
	if path != "" && !reflect.DeepEqual(before, after) {
		*out = append(*out, Attribute{Path: path})
	}
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// inside is what a mark says about a key: true is about everything below it.
func inside(mark any, key string) any {
	switch m := mark.(type) {
	case bool:
		return m
	case map[string]any:
		return m[key]
	}
	return nil
}

func element(mark any, i int) any {
	switch m := mark.(type) {
	case bool:
		return m
	case []any:
		return at(m, i)
	}
	return nil
}

// hasTrue says whether there is a true anywhere in a tree of marks.
func hasTrue(mark any) bool {
	switch m := mark.(type) {
	case bool:
		return m
	case map[string]any:
		for _, v := range m {
			if hasTrue(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(m, hasTrue)
	}
	return false
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

func join(path, key string) string {
	switch {
	case !plainName.MatchString(key):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}
