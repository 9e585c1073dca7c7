from tunesmith.commandline.main import run

run()
