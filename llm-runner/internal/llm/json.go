package llm

import (
	"bytes"
	"encoding/json"
)

// AppendJSON appends v as JSON, without a newline, with <, > and & as they are. v is of a type that always can be: it panics where it cannot.
func AppendJSON(dst []byte, v any) []byte {
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("write JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
