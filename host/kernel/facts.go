package kernel

// Facts is what the rest of labctl asks of a kernel's own type information,
// read from its image without booting it.
type Facts struct {
	// HasBTF says whether the image carries BTF; without it Members and Params
	// are empty.
	HasBTF bool `json:"has_btf"`
	// Members maps "struct.member" to its place: "kernel_clone_args.flags".
	// Members of anonymous members are found by their own name.
	Members map[string]Member `json:"members"`
	// Params maps a function to its parameters in order: "kernel_clone".
	Params map[string][]Param `json:"params"`
}

// Member is the place of a structure member, in bytes.
type Member struct {
	Offset int `json:"offset"`
	Size   int `json:"size"`
}

// Param is one parameter of a kernel function, in C.
type Param struct {
	Name string `json:"name"`
	Type string `json:"type"` // "struct kernel_clone_args *"
}
