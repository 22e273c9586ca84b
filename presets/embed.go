// Package presets says, as data, what labctl trace arms by a name.
package presets

import _ "embed"

// YAML is presets.yaml.
//
//go:embed presets.yaml
var YAML []byte
