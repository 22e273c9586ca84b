package lab

import (
	"encoding/json"

	"github.com/invopop/jsonschema"
)

// SchemaFile is the published JSON Schema's name in labs/.
const SchemaFile = "lab.schema.json"

// Schema is the JSON Schema of lab.yaml, for editors. What it cannot say, such as
// that an expression type-checks, Parse does.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{ExpandedStruct: true, Anonymous: true}
	s := r.Reflect(&Lab{})
	s.Title, s.Description = "labctl lab", "lab.yaml of a labctl lab; docs/labs.md describes it"
	b, err := json.MarshalIndent(s, "", "  ")
	return append(b, '\n'), err
}
