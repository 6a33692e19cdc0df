package main

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// The form of terraform providers schema -json, so that a real provider's own words can be laid beside these.
type (
	provider struct {
		Provider  schema            `json:"provider"`
		Resources map[string]schema `json:"resource_schemas"`
	}
	schema struct {
		Version int64 `json:"version"`
		Block   block `json:"block"`
	}
	block struct {
		Attributes map[string]attribute `json:"attributes"`
		Blocks     map[string]nested    `json:"block_types"`
	}
	attribute struct {
		Type      json.RawMessage `json:"type"`
		Required  bool            `json:"required"`
		Optional  bool            `json:"optional"`
		Computed  bool            `json:"computed"`
		Sensitive bool            `json:"sensitive"`
	}
	nested struct {
		Mode  string `json:"nesting_mode"`
		Block block  `json:"block"`
		Min   int64  `json:"min_items"`
		Max   int64  `json:"max_items"`
	}
)

var modes = map[string]tfprotov6.SchemaNestedBlockNestingMode{
	"single": tfprotov6.SchemaNestedBlockNestingModeSingle, "list": tfprotov6.SchemaNestedBlockNestingModeList, "set": tfprotov6.SchemaNestedBlockNestingModeSet,
}

func (s schema) told() *tfprotov6.Schema {
	return &tfprotov6.Schema{Version: s.Version, Block: s.Block.told()}
}

func (b block) told() *tfprotov6.SchemaBlock {
	out := &tfprotov6.SchemaBlock{}
	for name, a := range b.Attributes {
		out.Attributes = append(out.Attributes, &tfprotov6.SchemaAttribute{Name: name, Type: parseType(a.Type), Required: a.Required, Optional: a.Optional, Computed: a.Computed, Sensitive: a.Sensitive})
	}
	for name, n := range b.Blocks {
		out.BlockTypes = append(out.BlockTypes, &tfprotov6.SchemaNestedBlock{TypeName: name, Block: n.Block.told(), Nesting: modes[n.Mode], MinItems: n.Min, MaxItems: n.Max})
	}
	return out
}

// parseType reads a type: "string", ["list", "string"], ["object", {...}].
func parseType(text json.RawMessage) tftypes.Type {
	var plain string
	if json.Unmarshal(text, &plain) == nil {
		switch plain {
		case "string":
			return tftypes.String
		case "number":
			return tftypes.Number
		case "bool":
			return tftypes.Bool
		}
		panic(fmt.Sprintf("type %s", text))
	}
	var pair []json.RawMessage
	var kind string
	if json.Unmarshal(text, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &kind) != nil {
		panic(fmt.Sprintf("type %s", text))
	}
	switch kind {
	case "list":
		return tftypes.List{ElementType: parseType(pair[1])}
	case "set":
		return tftypes.Set{ElementType: parseType(pair[1])}
	case "map":
		return tftypes.Map{ElementType: parseType(pair[1])}
	case "object":
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(pair[1], &fields); err != nil {
			panic(err)
		}
		types := map[string]tftypes.Type{}
		for name, t := range fields {
			types[name] = parseType(t)
		}
		return tftypes.Object{AttributeTypes: types}
	}
	panic(fmt.Sprintf("type %s", text))
}
