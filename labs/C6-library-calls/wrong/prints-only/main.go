// Prints a number and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("child", os.Getpid()+5) }
