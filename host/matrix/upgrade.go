package matrix

import "labctl/host/outcome"

// schemaV1 is the schema before Schema. It had the same form, and words of its own
// for how a cell ended.
const schemaV1 = "labctl/matrix/v1"

var older = map[string]func(map[string]any){schemaV1: upgradeV1}

var statusesV1 = map[string]outcome.Kind{
	"pass":  outcome.OK,
	"fail":  outcome.CheckFailed,
	"crash": outcome.GuestCrashed,
	"error": outcome.HostLacks, // or bad input, which v1 did not tell from it
}

// upgradeV1 makes a document of schemaV1 one of Schema: a matrix, a plan or a cell.
func upgradeV1(doc map[string]any) {
	upgradeStatus(doc)
	results, _ := doc["results"].([]any)
	for _, r := range results {
		if r, ok := r.(map[string]any); ok {
			upgradeStatus(r)
		}
	}
}

func upgradeStatus(result map[string]any) {
	old, _ := result["status"].(string)
	if k, ok := statusesV1[old]; ok {
		result["status"] = string(k)
	}
}
