# Makes the documents beside it, with python-docx, odfpy, EbookLib, reportlab and pypdf. browser.pdf is page.html, printed by Chromium.
import docx, datetime
from docx import Document
d=Document()
d.core_properties.title="Boiler manual"
d.add_heading("Boiler manual",1)
d.add_paragraph("The boiler was installed by Mrs Lindqvist in May 2024.")
d.add_heading("Maintenance",2)
d.add_paragraph("Drain the tank once a year.",style="List Bullet")
d.add_paragraph("Replace the anode every three years.",style="List Bullet")
t=d.add_table(rows=2,cols=2); t.cell(0,0).text="Part"; t.cell(0,1).text="Number"; t.cell(1,0).text="Anode | rod"; t.cell(1,1).text="AN-7731"
p=d.add_paragraph("Größe: "); p.add_run("zwölf").bold=True; p.add_run(" Liter.")
d.save("boiler.docx")
from odf.opendocument import OpenDocumentText
from odf.text import H,P,List,ListItem,Note,NoteBody,NoteCitation
from odf.table import Table,TableRow,TableCell
o=OpenDocumentText()
from odf.dc import Title
o.meta.addElement(Title(text="Garden plan"))
o.text.addElement(H(outlinelevel=1,text="Garden plan"))
o.text.addElement(P(text="The apple tree is a Boskoop."))
o.text.addElement(H(outlinelevel=2,text="Spring"))
l=List()
for s in ("Prune the roses in March.","Sow the carrots."):
    i=ListItem(); i.addElement(P(text=s)); l.addElement(i)
o.text.addElement(l)
tb=Table(name="t")
for row in (("Bed","Crop"),("North","Leeks")):
    r=TableRow()
    for c in row:
        k=TableCell(); k.addElement(P(text=c)); r.addElement(k)
    tb.addElement(r)
o.text.addElement(tb)
o.save("garden.odt")
from ebooklib import epub
b=epub.EpubBook(); b.set_identifier("x"); b.set_title("The Lamp Keeper"); b.set_language("en")
cs=[]
for i,(h,t) in enumerate((("The storm","The lamp went out at midnight."),("The morning","A brass key lay under the mat."))):
    c=epub.EpubHtml(title=h,file_name=f"c {i}.xhtml"); c.content=f"<html><head><title>{h}</title></head><body><h1>{h}</h1><p>{t}</p></body></html>"; b.add_item(c); cs.append(c)
b.toc=cs; b.spine=["nav"]+cs; b.add_item(epub.EpubNcx()); b.add_item(epub.EpubNav())
epub.write_epub("lamp.epub",b)
from reportlab.pdfgen import canvas
from reportlab.lib.pagesizes import A4
c=canvas.Canvas("report.pdf",pagesize=A4); c.setTitle("Water report")
c.setFont("Helvetica-Bold",18); c.drawString(72,780,"Water report")
c.setFont("Helvetica",11)
y=750
for s in ("The well was measured in June. The hardness is 14 degrees, which is me-","dium hard. Iron is below the limit.","","The next measurement is due in June 2027."):
    c.drawString(72,y,s); y-=14
c.showPage()
c.rect(100,100,300,300,fill=1); c.showPage()
c.setFont("Times-Roman",12)
from reportlab.platypus import Paragraph
from reportlab.lib.styles import getSampleStyleSheet
p=Paragraph("Annex: the laboratory is called <b>Aquatest</b> and its number is <font name='Courier'>030 5550199</font>. Kerning and justified text must not tear words apart nor glue them together, however long the paragraph is.",getSampleStyleSheet()["BodyText"])
w,h=p.wrapOn(c,300,400); p.drawOn(c,72,700)
c.showPage(); c.save()
from pypdf import PdfReader,PdfWriter
r=PdfReader("report.pdf"); w=PdfWriter()
for pg in r.pages: w.add_page(pg)
w.encrypt("secret"); w.write("locked.pdf")
